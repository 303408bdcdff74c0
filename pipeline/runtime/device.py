"""The device that a process computes on, and arithmetic that repeats there."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from pipeline.runtime.errors import UserError

_picked: list[torch.device] = []


def pick_device() -> torch.device:
    """The GPU if there is one, else the CPU: for a process that has the machine to itself. The same
    inputs give the same bytes on it."""
    if not torch.cuda.is_available():  # a CPU repeats as it is
        return torch.device("cpu")
    repeatable()
    _picked.append(torch.device("cuda"))
    return _picked[-1]


def computing_on() -> str:
    """The name of the GPU that this process has picked, else "cpu", or "cpu, in float32" where
    params that ask for bfloat16 have no effect."""
    if _picked:
        return torch.cuda.get_device_name(_picked[-1])
    return "cpu" if _cpu_multiplies_bfloat16() else "cpu, in float32"


def worker_device(use_gpu: bool) -> torch.device:
    """The device of a process that does a stage's work: the stage's own, or a worker of Ray, which
    shows each worker its own GPU under `ray.use_gpu`.

    Raises:
        UserError: `ray.use_gpu` is true and there is no GPU. On a CPU the work would take days.
    """
    if use_gpu and not torch.cuda.is_available():
        reason = f"PyTorch sees no GPU on {platform.node()}, where this works"
        way_out = "set it to false, or run where there is one (docs/cluster.md)"
        raise UserError("ray.use_gpu", reason, way_out)
    return pick_device() if use_gpu else torch.device("cpu")


def driver_device(use_gpu: bool, workers: int) -> torch.device:
    """The device of a stage's own process. With several workers it only looks at what they made,
    and may be a cluster's head without a GPU: it then takes the CPU, and prints a line.

    Raises:
        UserError: as `worker_device`, if it is the one worker itself.
    """
    if workers > 1 and use_gpu and not torch.cuda.is_available():
        _print_no_gpu()
        return torch.device("cpu")
    return worker_device(use_gpu)


@cache  # once a process
def _print_no_gpu() -> None:
    where = f"no GPU on {platform.node()}, whose own part is done on its CPU"
    print(f"ray.use_gpu: {where}; Ray's workers have theirs", flush=True)


def quick_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is quicker than float32 on a device: on a CPU only if it multiplies bfloat16
    itself (x86-64 with AVX-512 BF16, ARM with BF16). Others convert each number, and take 2.5
    (AVX-512) to 10 times (AVX2) as long as in float32."""
    return device.type != "cpu" or _cpu_multiplies_bfloat16()


@cache
def _cpu_multiplies_bfloat16() -> bool:
    has = torch.cpu.get_capabilities()
    return onednn_takes_bfloat16() and bool(has.get("avx512_bf16") or has.get("bf16"))


def onednn_takes_bfloat16() -> bool:
    """Whether oneDNN computes `F.linear` in bfloat16 on this CPU, though it may be slow."""
    # Private: nothing public says what oneDNN does with this build and ONEDNN_MAX_CPU_ISA.
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """bfloat16 for the block's networks if it is asked for and quick, else float32."""
    enabled = bf16 and quick_in_bfloat16(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether a GPU's convolutions in float32 read TF32 in the block, which has 10 bits and is
    several times as fast. (Elsewhere they never do: see `repeatable`.)"""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the device, without waiting for earlier work of the device: a plain `to`
    waits, and so does a copy from memory that is not pinned."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Wall-clock time of a call in seconds; the device has finished all work at both ends."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    started = now()
    run()
    return now() - started


def repeatable() -> None:
    """Choose, where they exist, GPU algorithms that give the same bytes each time, and full
    precision for products in float32. (By default cuDNN rounds the inputs of convolutions to TF32's
    10 bits, which moves some images' tokens and every feature.)

    Other algorithms only warn: it is not known which ones a stage needs on a GPU. PyTorch therefore
    takes the quicker gradient of attention too, whose sums have no fixed order.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing reads uninitialized memory. (Type checkers do not see this property of the module.)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def require_compiler(gpu: bool) -> None:
    """Check, before anything is trained, for the compiler that `torch.compile` needs at its first
    step: for CPUs it builds kernels, for GPUs what launches them.

    Raises:
        UserError: there is no compiler.
    """
    kind, names = "C", ["gcc", "clang"]
    if not gpu:
        kind, names = "C++", ["clang++" if sys.platform == "darwin" else "g++"]
    names = [named] if (named := os.environ.get("CC" if gpu else "CXX")) else names
    if not any(map(shutil.which, names)):
        reason = f"torch.compile needs a {kind} compiler, and there is no {' or '.join(names)}"
        way_out = f"install it (Debian: apt install {'gcc' if gpu else 'g++'} python3-dev)"
        raise UserError("training.compile", reason, f"{way_out}, or set training.compile to false")
