"""Image sets to measure, read in batches: arrays, the data set and published samples. The module
`image_files` opens the image sets of `maskgit measure`."""

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
    """A sequence of images of equal shape, read by range."""

    shape: tuple[int, int, int]  # (C, H, W) of each image, C 1 or 3

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Tensor:
        """Read the images from `start` up to, but not including, `stop`, as a contiguous tensor
        (B, C, H, W) uint8."""


def batches(images: ImageSet, size: int = BATCH) -> Iterator[Tensor]:
    """Yield the images in order, in batches (B, C, H, W) uint8 of at most `size` images."""
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
        data: params section `data`.
        count: number of images to take, from the first; None takes all.

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
        return CenterCrops, self._args  # unpickling opens the shards in the other process

    def read(self, start: int, stop: int) -> Tensor:
        # Contiguous: a convolution of colour images may round differently for other strides.
        return self.view.centers(range(start, stop)).contiguous()


class SampleImages(CenterCrops):
    """Samples that the stage `evaluate` has published."""

    def __init__(self, folder: Path, data: ImageParams, count: int | None = None):
        super().__init__(folder, SPLIT, data, count)
