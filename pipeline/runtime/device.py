"""The device of single-process stages, and arithmetic that repeats."""

import os

import torch


def pick_device() -> torch.device:
    """The GPU where there is one, else the CPU; on it, the same inputs give the same bytes."""
    if not torch.cuda.is_available():  # a CPU repeats as it is
        return torch.device("cpu")
    repeatable()
    return torch.device("cuda")


def repeatable() -> None:
    """Choose algorithms of a GPU that give the same bytes each time, where there are such."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing reads what it fills. (A property of the module, which type checkers do not see.)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
