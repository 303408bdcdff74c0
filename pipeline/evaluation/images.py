"""Image sets, read batch by batch: arrays, and the shards of samples and of the data set.
What others made is in `image_files`."""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.data.images.samples import open_samples
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.views import ImageParams, View
from pipeline.runtime.files import tree_hash, value_hash

BATCH = 64  # images held in memory at once, and that a network sees at once


class ImageSet(Protocol):
    """Images that are read from any of them on, and travel to other processes."""

    shape: tuple[int, int, int]  # (C, H, W) of each image, C 1 or 3

    @property
    def content_hash(self) -> str:
        """The same for the same images in the same order."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Tensor:
        """The images (B, C, H, W) uint8 from `start` to before `stop`."""

    def batches(self, size: int) -> Iterator[Tensor]:
        """The images in order, as uint8 batches (B, C, H, W), B at most `size`."""


def pixel_hash(images: ImageSet) -> str:
    """Of an image set: the same for the same pixels, however they are stored."""
    digest = hashlib.sha256(repr((len(images), *images.shape)).encode())
    for batch in images.batches(BATCH):
        digest.update(batch.numpy().data)
    return digest.hexdigest()


class ArrayImages:
    """An array (n, C, H, W) uint8, in memory or memory-mapped. Its hash is that of its pixels."""

    def __init__(self, images: np.ndarray):
        self._images, self.shape = images, images.shape[1:]

    def __len__(self) -> int:
        return len(self._images)

    def read(self, start: int, stop: int) -> Tensor:
        return torch.from_numpy(np.array(self._images[start:stop]))

    @cached_property
    def content_hash(self) -> str:
        return pixel_hash(self)

    def batches(self, size: int) -> Iterator[Tensor]:
        for start in range(0, len(self), size):
            yield self.read(start, start + size)


class CenterCrops:
    """Centre crops of a split of the data set. Those of the training split are what samples are
    compared with, as is usual on ImageNet."""

    def __init__(self, folder: Path, split: str, data: ImageParams):
        self._opened_by = (folder, split, data)
        self.view = View(ImageShards(folder, split), data)
        self.shape = (data.channels, data.image_size, data.image_size)
        self.labels = torch.from_numpy(self.view.images.labels)

    def __len__(self) -> int:
        return len(self.view.images)

    def __reduce__(self) -> tuple[Any, ...]:
        return CenterCrops, self._opened_by  # without the images that it has in memory

    @cached_property
    def content_hash(self) -> str:
        folder, split, _ = self._opened_by
        return value_hash([tree_hash(folder), split, self.shape])

    def read(self, start: int, stop: int) -> Tensor:
        return self.view.centers(range(start, stop))

    def batches(self, size: int) -> Iterator[Tensor]:
        return self.view.batches(size)


class SampleImages:
    """Samples that `evaluate` has written. Their hash is that of the shards that they lie in: to
    read the pixels of ImageNet's takes a core an hour.

    Args:
        data: of the params that they were drawn with.
        count: the first so many; None for all.

    Raises:
        UserError: they are missing, or not those that were written.
    """

    def __init__(self, folder: Path, data: ImageParams, count: int | None = None):
        self._opened_by = (folder, data, count)
        self.view = View(open_samples(folder), data)  # whose crops are the whole of each
        self.shape = (data.channels, data.image_size, data.image_size)
        self.labels = torch.from_numpy(self.view.images.labels[:count])  # (M,) int64

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleImages, self._opened_by

    def first(self, count: int) -> "SampleImages":
        """The first images, at most so many, as an image set."""
        folder, data, _ = self._opened_by
        return SampleImages(folder, data, min(count, len(self)))

    @cached_property
    def content_hash(self) -> str:
        return value_hash([self.view.images.hashes(len(self)), len(self), self.shape])

    def read(self, start: int, stop: int) -> Tensor:
        # As an array's lie in memory, or a convolution of colours could round otherwise.
        return self.view.centers(range(start, stop)).contiguous()

    def batches(self, size: int) -> Iterator[Tensor]:
        for start in range(0, len(self), size):
            yield self.read(start, min(start + size, len(self)))
