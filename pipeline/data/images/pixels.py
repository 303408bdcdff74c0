"""Pixels as bytes and as numbers."""

import torch
from torch import Tensor


def as_float(images: Tensor) -> Tensor:
    """uint8 in [0, 255] to float32 in [0, 1]."""
    return images.float() / 255


def as_uint8(images: Tensor) -> Tensor:
    """Float in [0, 1] to uint8, rounded (a plain cast would truncate)."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)
