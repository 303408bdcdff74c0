"""The device of single-process stages, and arithmetic that repeats."""

import torch


def pick_device() -> torch.device:
    """The GPU where there is one, else the CPU; on it, the same inputs give the same bytes."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing reads what it fills
    torch.backends.cudnn.benchmark = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
