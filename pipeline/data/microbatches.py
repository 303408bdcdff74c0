"""Splits large batches, so that a network's tensors fit into memory."""

from collections.abc import Callable

import torch
from torch import Tensor

PIXELS = 2**21  # of the images that a network reads or makes at once, without gradients
TOKENS = 2**15  # the same of token sequences


def in_parts(function: Callable[..., Tensor], rows: int, *batch: Tensor) -> Tensor:
    """Compute `function(*batch)` on at most `rows` rows at a time.

    Args:
        function: maps rows to rows, each by itself, and draws nothing.
        rows: 0 counts as 1.
        batch: tensors of one length.
    """
    rows = max(1, rows)
    if len(batch[0]) <= rows:
        return function(*batch)
    parts = zip(*(tensor.split(rows) for tensor in batch), strict=True)
    return torch.cat([function(*part) for part in parts])
