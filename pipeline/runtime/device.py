"""The device that a process computes on, and settings that make its arithmetic repeatable."""

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pipeline.runtime.errors import UserError

_picked: list[torch.device] = []


def pick_device() -> torch.device:
    """Pick the GPU if PyTorch finds one, else the CPU, and make the device's results repeatable."""
    if not torch.cuda.is_available():  # results on a CPU are repeatable without settings
        return torch.device("cpu")
    repeatable()
    _picked.append(torch.device("cuda"))
    return _picked[-1]


def computing_on() -> str:
    """The name of the picked GPU; else "cpu", or "cpu, in float32" for a CPU that cannot multiply
    bfloat16, on which `bf16` params have no effect."""
    if _picked:
        return torch.cuda.get_device_name(_picked[-1])
    return "cpu" if _cpu_multiplies_bfloat16() else "cpu, in float32"


def worker_device(use_gpu: bool) -> torch.device:
    """The device of a process that does a stage's work: the stage itself, or a Ray worker. Raises a
    `UserError` if `ray.use_gpu` is true and PyTorch finds no GPU: a CPU would take days."""
    if use_gpu and not torch.cuda.is_available():
        reason = f"PyTorch finds no GPU on {platform.node()}, where this process runs"
        way_out = "set ray.use_gpu to false, or use a machine with a GPU (docs/cluster.md)"
        raise UserError("ray.use_gpu", reason, way_out)
    return pick_device() if use_gpu else torch.device("cpu")


def driver_device(use_gpu: bool, workers: int) -> torch.device:
    """The device of a stage's own process. With several workers, this process only collects
    results, so it may run on a cluster's head without a GPU."""
    return worker_device(use_gpu and (workers == 1 or torch.cuda.is_available()))


def quick_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32: on all GPUs, and on CPUs that multiply bfloat16."""
    return device.type != "cpu" or _cpu_multiplies_bfloat16()


def _cpu_multiplies_bfloat16() -> bool:
    has = torch.cpu.get_capabilities()  # x86-64 with AVX-512 BF16, ARM with BF16
    return onednn_takes_bfloat16() and bool(has.get("avx512_bf16") or has.get("bf16"))


def onednn_takes_bfloat16() -> bool:
    """Whether oneDNN can compute `F.linear` in bfloat16 on this CPU, even if slowly."""
    # A private API: no public API tells what oneDNN supports (build, CPU, ONEDNN_MAX_CPU_ISA).
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """A context in which networks run in bfloat16, if `bf16` is true and bfloat16 is fast on the
    device, else in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16 and quick_in_bfloat16(device))


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Within the block, compute float32 convolutions on a GPU in TF32 if `allowed`. TF32 has 10
    bits of precision and is several times as fast as float32. Outside such blocks, TF32 is off
    (see `repeatable`)."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the device without waiting for the device's earlier work."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Wall-clock time of a call in seconds; the device is synchronized before and after."""
    wait = torch.get_device_module(device).synchronize
    wait()
    started = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - started


def repeatable() -> None:
    """Use deterministic algorithms on GPUs, and turn off TF32, which would change some tokens and
    every feature. PyTorch only warns about operations that have no deterministic algorithm
    (the backward pass of fast attention)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def require_compiler(gpu: bool) -> None:
    """Raise a `UserError` before training if the compiler that `torch.compile` needs is missing:
    C++ for a CPU, C for a GPU."""
    kind, variable, names = ("C", "CC", ["gcc", "clang"]) if gpu else ("C++", "CXX", ["g++"])
    names = [named] if (named := os.environ.get(variable)) else names
    if not any(map(shutil.which, names)):
        reason = f"torch.compile needs a {kind} compiler, but no {' or '.join(names)} was found"
        way_out = f"install a compiler (Debian: apt install {'gcc' if gpu else 'g++'} python3-dev)"
        raise UserError("training.compile", reason, f"{way_out}, or set training.compile to false")
