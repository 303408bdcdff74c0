"""The device that a process computes on, and settings that make its arithmetic repeatable."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pipeline.runtime.errors import UserError
from pipeline.runtime.process import PRECISION

_picked: list[torch.device] = []


def pick_device() -> torch.device:
    """Pick the GPU if PyTorch finds one, else the CPU, and make the device's results repeatable."""
    if not torch.cuda.is_available():  # results on a CPU are repeatable without settings
        return torch.device("cpu")
    repeatable()
    _picked.append(torch.device("cuda"))
    return _picked[-1]


def computing_on() -> str:
    """The picked GPU's name; without a GPU, "cpu" and, once chosen, the networks' precision."""
    if _picked:
        return torch.cuda.get_device_name(_picked[-1])
    return ", ".join(filter(None, ("cpu", os.environ.get(PRECISION))))


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
    results, so it may run on a cluster's head that has no GPU."""
    return worker_device(use_gpu and (workers == 1 or torch.cuda.is_available()))


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Within the block, compute float32 convolutions on a GPU in TF32 if `allowed`. TF32 is several
    times faster than float32, but has a 10-bit mantissa. Outside such blocks, TF32 is off."""
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
    """Use deterministic algorithms on GPUs, and turn off TF32, whose rounding would change images'
    tokens and features. PyTorch only warns about operations that have no deterministic algorithm
    (the backward pass of fast attention)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
