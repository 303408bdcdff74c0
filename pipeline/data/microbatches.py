"""Batches in parts, so that no tensor of a network outgrows the memory."""

from collections.abc import Callable

import torch
from torch import Tensor

TENSOR_BYTES = 2**30  # a network that only predicts needs about six times as much


def in_parts(function: Callable[..., Tensor], row_bytes: int, *batch: Tensor) -> Tensor:
    """`function(*batch)`, of as many rows at once as keep its largest tensor to `TENSOR_BYTES`.

    Args:
        function: maps rows to rows, each by itself, and draws nothing.
        row_bytes: of its largest tensor, for a row of the batch.
        batch: tensors of one length.
    """
    rows = max(1, TENSOR_BYTES // row_bytes)
    if len(batch[0]) <= rows:
        return function(*batch)
    parts = zip(*(tensor.split(rows) for tensor in batch), strict=True)
    return torch.cat([function(*part) for part in parts])
