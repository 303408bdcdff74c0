"""The device that a process computes on, and arithmetic that repeats there."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from pipeline.runtime.errors import UserError


def pick_device() -> torch.device:
    """The GPU if there is one, else the CPU: for a process that has the machine to itself. The same
    inputs give the same bytes on it."""
    if not torch.cuda.is_available():  # a CPU repeats as it is
        return torch.device("cpu")
    repeatable()
    _picked.append(torch.device("cuda"))
    return _picked[-1]


_picked: list[torch.device] = []


def computing_on() -> str:
    """What this process computes on: the GPU that it has picked, else "cpu", or "cpu, in float32"
    where params that ask for bfloat16 do not get it."""
    if _picked:
        return torch.cuda.get_device_name(_picked[-1])
    return "cpu" if _cpu_multiplies_bfloat16() else "cpu, in float32"


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Wall-clock time of a call in seconds; the device has finished all work at both ends."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    started = now()
    run()
    return now() - started


def worker_device(use_gpu: bool) -> torch.device:
    """The device of a process that does a stage's work: one of Ray's, which shows each its own GPU
    under `ray.use_gpu`, or the stage's own. Without, every one sees all of the machine's, and
    beside its like leaves them alone.

    Raises:
        UserError: `ray.use_gpu`, and there is none. On a CPU the work would take days.
    """
    if use_gpu and not torch.cuda.is_available():
        raise UserError(
            f"ray.use_gpu: PyTorch sees no GPU on {platform.node()}, where this works; set it to "
            f"false, or run where there is one (docs/cluster.md)"
        )
    return pick_device() if use_gpu else torch.device("cpu")


def driver_device(use_gpu: bool, workers: int) -> torch.device:
    """The same for a stage's own process whose work is done by so many workers. Beside several it
    only looks at what they made, and may be a cluster's head that has no GPU: it then takes the
    CPU, and a line says so.

    Raises:
        UserError: as `worker_device`, where it is the one worker itself.
    """
    if workers > 1 and use_gpu and not torch.cuda.is_available():
        _say_no_gpu()
        return torch.device("cpu")
    return worker_device(use_gpu)


@cache  # once a process
def _say_no_gpu() -> None:
    print(
        f"ray.use_gpu: no GPU on {platform.node()}, whose own part is done on its CPU; Ray's "
        f"workers have theirs",
        flush=True,
    )


def quick_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is quicker there than float32: on a CPU only where it multiplies bfloat16
    itself (x86-64 with AVX-512 BF16, ARM with BF16). Others convert each number, and take 2.5
    (AVX-512) to 10 times (AVX2) as long as in float32."""
    return device.type != "cpu" or _cpu_multiplies_bfloat16()


@cache
def _cpu_multiplies_bfloat16() -> bool:
    if not onednn_takes_bfloat16():
        return False
    return platform.machine() in ("aarch64", "arm64") or torch.cpu._is_avx512_bf16_supported()


def onednn_takes_bfloat16() -> bool:
    """Whether this build of torch has oneDNN, and this CPU what it needs for bfloat16, though it
    may be slow: then `F.linear` uses it."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """bfloat16 for the block's networks, where it is asked for and quick; else float32."""
    enabled = bf16 and quick_in_bfloat16(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether, in the block, a GPU's convolutions in float32 read TF32, which has 10 bits: they are
    several times as fast. (Elsewhere they never do: see `repeatable`.)"""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU's tensor on the device, without waiting for what the device still has to do: a plain
    `to` does, and so does one from memory that is not pinned."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def repeatable() -> None:
    """Choose, where they exist, GPU algorithms that give the same bytes each time, and products in
    float32 as a CPU's. (By default cuDNN rounds what convolutions read to TF32's 10 bits, which
    moves some images' tokens and every feature.)

    Others are not refused, since no GPU has told which a stage needs. As long as they are not,
    PyTorch takes the quicker gradient of attention too, whose sums have no fixed order.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing reads what it fills. (A property of the module, which type checkers do not see.)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
