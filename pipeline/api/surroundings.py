"""What surrounds a call of the API and would silently change what it draws, or never end."""

import os

import torch

from pipeline.runtime.errors import ArgumentError
from pipeline.weights.published import require_float32

_opened_in: int | None = None  # the process that opened the first model; forked ones inherit it


def note_process() -> None:
    """Remember that this process has a model, and so threads of PyTorch's."""
    global _opened_in
    if _opened_in is None:
        _opened_in = os.getpid()


def require_plain_torch() -> None:
    """Refuse PyTorch in another state than the run's was in, which would change results.

    Raises:
        ArgumentError: autocast is on, another device than the CPU is the default, or this process
            was forked from one that has a model.
        UserError: the default dtype is another than float32.
    """
    if any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")):
        raise ArgumentError(
            "torch.autocast is on, which would change what is drawn; call outside of it (for "
            "speed there is bf16=True)"
        )
    if (default := torch.get_default_device()).type != "cpu":
        raise ArgumentError(
            f"torch's default device is {default}, which would change what is drawn; set it to "
            f"cpu, and give the model's own as device"
        )
    require_float32()
    forked = _opened_in not in (None, os.getpid())
    if forked and torch.get_num_threads() > 1:
        raise ArgumentError(
            "this process was forked from one that has a model, and PyTorch's threads would never "
            "end here; start processes by multiprocessing's 'spawn', or call "
            "torch.set_num_threads(1) before"
        )
