"""Defines the interface of image sets for metrics (`ImageSet`), and image sets in arrays."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

BATCH = 64  # images read at once


class ImageSet(Protocol):
    """A sequence of images of equal shape, read by range."""

    shape: tuple[int, int, int]  # (C, H, W) of each image, C 1 or 3

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Tensor:
        """Read the images in range(start, stop) as a contiguous tensor (B, C, H, W) uint8."""


def batches(images: ImageSet, size: int = BATCH) -> Iterator[Tensor]:
    """Yield an image set in batches (B, C, H, W) uint8 of at most `size` images."""
    for start in range(0, len(images), size):
        yield images.read(start, min(start + size, len(images)))


class ArrayImages:
    """An image set in an array (n, C, H, W) uint8, in memory or memory-mapped, with optional labels
    (n,) int64."""

    def __init__(self, images: np.ndarray, labels: Tensor | None = None):
        self.images, self.labels = images, labels
        self.shape = images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int) -> Tensor:
        return torch.from_numpy(np.array(self.images[start:stop], order="C"))
