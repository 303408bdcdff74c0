"""Pixels as bytes and as numbers."""

import torch
from torch import Tensor

from pipeline.runtime.errors import UserError


def as_float(images: Tensor) -> Tensor:
    """uint8 in [0, 255] to float32 in [0, 1]."""
    return images.float() / 255


def as_uint8(images: Tensor) -> Tensor:
    """Float in [0, 1] to uint8, rounded (a plain cast would truncate).

    Raises:
        UserError: a value is NaN, which would become any grey.
    """
    if images.isnan().any():
        raise UserError(
            "pixels are NaN, so the weights of the tokenizer that made them are damaged or its "
            "training diverged; train it again (`dvc repro -f train_tokenizer`), where it diverges "
            "with a lower tokenizer.lr"
        )
    return (images * 255).round().clamp(0, 255).to(torch.uint8)
