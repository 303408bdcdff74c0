"""Sets of images to measure, read batch by batch: arrays, and shards of the data set and of
samples. `image_files` has those of `maskgit measure`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.data.images.samples import SPLIT, open_samples
from pipeline.data.images.shards import ImageParams, ImageShards, View

BATCH = 64  # images read at once


class ImageSet(Protocol):
    """Images that can be read from any position."""

    shape: tuple[int, int, int]  # (C, H, W) of each image, C 1 or 3

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Tensor:
        """The images (B, C, H, W) uint8, contiguous, from `start` up to, but not including,
        `stop`."""


def batches(images: ImageSet, size: int = BATCH) -> Iterator[Tensor]:
    """The images in order, as batches (B, C, H, W) uint8, B at most `size`."""
    for start in range(0, len(images), size):
        yield images.read(start, min(start + size, len(images)))


class ArrayImages:
    """An array (n, C, H, W) uint8, in memory or memory-mapped, with optional labels (n,) int64."""

    def __init__(self, images: np.ndarray, labels: Tensor | None = None):
        self.images, self.labels = images, labels
        self.shape = images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int) -> Tensor:
        return torch.from_numpy(np.array(self.images[start:stop], order="C"))


class CenterCrops:
    """Centre crops of a split of the data set, or of published samples.

    Args:
        data: the section of the params.
        count: the number of images, from the first on; None for all.

    Raises:
        UserError: the images do not exist or cannot be read.
    """

    def __init__(self, folder: Path, split: str, data: ImageParams, count: int | None = None):
        self._args = folder, split, data, count
        images = open_samples(folder) if split == SPLIT else ImageShards(folder, split)
        self.view = View(images, data)
        self.shape = (data.channels, data.image_size, data.image_size)
        self.labels = torch.from_numpy(images.labels[:count])  # (n,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return CenterCrops, self._args  # workers open the shards themselves

    def read(self, start: int, stop: int) -> Tensor:
        # Contiguous: for other strides a convolution of colours could round differently.
        return self.view.centers(range(start, stop)).contiguous()


class SampleImages(CenterCrops):
    """Samples that `evaluate` has published."""

    def __init__(self, folder: Path, data: ImageParams, count: int | None = None):
        super().__init__(folder, SPLIT, data, count)
