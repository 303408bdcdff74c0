"""Chooses bfloat16 or float32 for networks on a CPU, by timing both.

The processor's instructions do not tell which precision is faster: some Intel processors multiply
bfloat16, but compute twice as fast in float32.
"""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json, write_json
from pipeline.runtime.process import PRECISION

Kind = Literal["products", "convolutions"]  # the work of transformers; of the other networks
Bf16 = bool | Literal["force"]  # a param: true where bfloat16 is faster; "force": always

FASTER = 1.15  # bfloat16 is chosen if it is at least this many times as fast
ROUNDS = 10


def in_bfloat16(bf16: Bf16, device: torch.device, kind: Kind) -> bool:
    """Whether to compute in bfloat16: always if `bf16` is "force"; if `bf16` is true, on GPUs, and
    on CPUs that are clearly faster in bfloat16."""
    return bf16 == "force" or (bf16 and (device.type != "cpu" or f"{kind} in bfloat16" in choice()))


def autocast(device: torch.device, bf16: Bf16, kind: Kind) -> torch.autocast:
    """A context in which networks run in bfloat16 or float32, as `in_bfloat16` says."""
    enabled = in_bfloat16(bf16, device, kind)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def choice(*folders: Path) -> str:
    """The choice on this CPU, in words that name both times. It is measured once per processor and
    PyTorch version, in less than a second, and kept in the user's cache folder and in `folders`.
    Workers inherit the choice of the process that started them."""
    if PRECISION not in os.environ:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        files = [folder / "precision.json" for folder in (*folders, Path(caches, "maskgit"))]
        machine = f"{_processor()}, PyTorch {torch.__version__}"
        known = [found for file in files if (found := _read(file).get(machine))]
        os.environ[PRECISION] = chosen = known[0] if known else measured()
        for file in files:
            with suppress(UserError):  # a read-only folder
                if machine not in (found := _read(file)):
                    write_json(file, found | {machine: chosen})
    return os.environ[PRECISION]


def _read(file: Path) -> dict[str, str]:
    with suppress(UserError):  # missing or damaged
        return dict(read_json(file))
    return {}


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measured() -> str:
    """Time training steps of a transformer's feed-forward block on 8 images, and of a residual
    block of the tokenizer on 16 images, in both precisions, and return the choice."""
    with _one_thread(), torch.random.fork_rng(devices=[]):
        linear = nn.Linear(256, 1024), nn.GELU("tanh"), nn.Linear(1024, 256)
        layers = [nn.GroupNorm(32, 64), nn.SiLU(), nn.Conv2d(64, 64, 3, padding=1)]
        times = {
            "products": _times(nn.Sequential(*linear), torch.randn(8 * 49, 256)),
            "convolutions": _times(nn.Sequential(*2 * layers), torch.randn(16, 64, 14, 14)),
        }
    said = []
    for kind, (half, single) in times.items():
        name = "bfloat16" if FASTER * half <= single else "float32"
        said.append(f"{kind} in {name} ({1000 * half:.1f} ms; in float32 {1000 * single:.1f} ms)")
    return ", ".join(said)


def _times(block: nn.Module, batch: Tensor) -> tuple[float, float]:
    """The least time of a training step in bfloat16 and in float32, in seconds. CPU time is
    measured, so that other work on the machine matters little."""
    least = [float("inf")] * 2
    for number in range(2 * ROUNDS):
        started = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=number % 2 == 0):
            result = block(batch)
        result.float().square().mean().backward()
        least[number % 2] = min(least[number % 2], time.process_time() - started)
    return least[0], least[1]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
