"""Chooses bfloat16 or float32 for networks on a CPU, by timing both.

The instruction set does not tell which precision is faster: some Intel processors have bfloat16
instructions, but run networks twice as fast in float32.
"""

import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json, write_json
from pipeline.runtime.process import PRECISION

Kind = Literal["products", "convolutions"]  # matrix products (transformers), or other networks
Bf16 = bool | Literal["force"]  # param; true: bfloat16 where faster; "force": always

FASTER = 1.15  # bfloat16 is chosen if it is at least this many times as fast
ROUNDS = 10


def in_bfloat16(bf16: Bf16, device: torch.device, kind: Kind) -> bool:
    """Whether to compute in bfloat16. If `bf16` is "force": always. If `bf16` is true: on GPUs, and
    on a CPU that runs this kind of network faster in bfloat16. If `bf16` is false: never."""
    return bf16 == "force" or (bf16 and (device.type != "cpu" or f"{kind} in bfloat16" in choice()))


def autocast(device: torch.device, bf16: Bf16, kind: Kind) -> torch.autocast:
    """A context in which networks run in bfloat16 or float32, as `in_bfloat16` says."""
    return torch.autocast(device.type, torch.bfloat16, enabled=in_bfloat16(bf16, device, kind))


def choice(*folders: Path) -> str:
    """The precision chosen on this CPU, as text with the times in bfloat16 and float32. The times
    are measured once per machine and PyTorch version, in less than a second, and stored in the
    user's cache folder and in `folders`. Workers inherit the choice of their parent process."""
    if PRECISION not in os.environ:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        files = [Path(folder, "precision.json") for folder in (Path(caches, "maskgit"), *folders)]
        known: dict[str, str] = {}
        for file in files:
            with suppress(UserError, TypeError, ValueError):  # missing or damaged
                known |= read_json(file)
        machine = f"{platform.node()}, PyTorch {torch.__version__}"
        os.environ[PRECISION] = known[machine] = known.get(machine) or measured()
        for file in files:
            with suppress(UserError):  # a read-only folder
                write_json(file, known)
    return os.environ[PRECISION]


def measured() -> str:
    """Time training steps of a transformer's feed-forward block on 8 images, and of a residual
    block of the tokenizer on 16 images, in bfloat16 and float32. Returns the choice as text."""
    said, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        linear = nn.Linear(256, 1024), nn.GELU("tanh"), nn.Linear(1024, 256)
        layers = [nn.GroupNorm(32, 64), nn.SiLU(), nn.Conv2d(64, 64, 3, padding=1)]
        blocks: dict[Kind, tuple[nn.Module, Tensor]] = {
            "products": (nn.Sequential(*linear), torch.randn(8 * 49, 256)),
            "convolutions": (nn.Sequential(*2 * layers), torch.randn(16, 64, 14, 14)),
        }
        for kind, block in blocks.items():
            half, single = _times(*block)
            name = "bfloat16" if FASTER * half <= single else "float32"
            times = f"bfloat16 {1000 * half:.1f} ms, float32 {1000 * single:.1f} ms"
            said.append(f"{kind} in {name} ({times})")
    torch.set_num_threads(threads)
    return "; ".join(said)


def _times(block: nn.Module, batch: Tensor) -> tuple[float, float]:
    """The least CPU time of a training step in bfloat16 and in float32, in seconds."""
    least, number = [float("inf")] * 2, 0
    while number < 4 or (number < 2 * ROUNDS and least[0] < 3 * least[1]):  # else emulated
        started = time.thread_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=number % 2 == 0):
            result = block(batch)
        result.float().square().mean().backward()
        least[number % 2] = min(least[number % 2], time.thread_time() - started)
        number += 1
    return least[0], least[1]
