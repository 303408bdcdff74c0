"""The device of single-process stages, and arithmetic that repeats."""

import os

import torch


def pick_device() -> torch.device:
    """The GPU if there is one, else the CPU. The same inputs give the same bytes on it."""
    if not torch.cuda.is_available():  # a CPU repeats as it is
        return torch.device("cpu")
    repeatable()
    return torch.device("cuda")


def repeatable() -> None:
    """Choose, where they exist, GPU algorithms that give the same bytes each time."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing reads what it fills. (A property of the module, which type checkers do not see.)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
