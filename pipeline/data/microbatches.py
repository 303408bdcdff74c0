"""Splits large batches, so that a network's activations fit into memory."""

from collections.abc import Callable

import torch
from torch import Tensor

PIXELS = 2**21  # maximum pixels of the images that a network processes at once without gradients
TOKENS = 2**15  # maximum tokens that a network processes at once without gradients


def in_parts(function: Callable[..., Tensor], rows: int, *batch: Tensor) -> Tensor:
    """Compute `function(*batch)` on at most `rows` rows of the tensors at a time (on one row if
    `rows` is 0), and concatenate the results. `function` must map each row independently of the
    other rows, and must draw no random numbers."""
    rows = max(1, rows)
    if len(batch[0]) <= rows:
        return function(*batch)
    parts = zip(*(tensor.split(rows) for tensor in batch), strict=True)
    return torch.cat([function(*part) for part in parts])
