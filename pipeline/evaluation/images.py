"""Image sets, read batch by batch: our own samples (`.npy`), and the data set itself. What others
made is in `image_files`."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pipeline.config.replicates import Replicate
from pipeline.data.images import samples
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.views import ImageParams, View
from pipeline.runtime.arrays import write_array
from pipeline.runtime.files import tree_hash, value_hash
from pipeline.runtime.workers import Alone, Maker

BATCH = 64  # images held in memory at once, and that a network sees at once


class ImageSet(Protocol):
    shape: tuple[int, int, int]  # (C, H, W) of each image, C 1 or 3

    @property
    def content_hash(self) -> str:
        """The same for the same images in the same order."""

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[Tensor]:
        """The images in order, as uint8 batches (B, C, H, W), B at most `size`."""


@runtime_checkable
class Readable(ImageSet, Protocol):
    """A set that is read from any image on, and travels to other processes."""

    def read(self, start: int, stop: int) -> Tensor:
        """The images (B, C, H, W) uint8 from `start` to before `stop`."""


def mapped_images(path: Path, start: int = 0, stop: int | None = None) -> "ArrayImages":
    """Images of an `.npy` of our own, from `start` to before `stop`."""
    return ArrayImages(np.load(path, mmap_mode="r")[start:stop], path, start)


class ArrayImages:
    """An array (n, C, H, W) uint8, in memory or memory-mapped. Its hash is that of its pixels, so
    that a slice of a file has another.

    Args:
        path: the file that is mapped, if one is. Then it travels by name, and not by content.
        start: the first of the file's images that is in the set.
    """

    def __init__(self, images: np.ndarray, path: Path | None = None, start: int = 0):
        self._images, self._path, self._start = images, path, start
        self.shape = images.shape[1:]

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is None:
            return ArrayImages, (self._images,)
        return mapped_images, (self._path, self._start, self._start + len(self))

    def __len__(self) -> int:
        return len(self._images)

    def first(self, count: int) -> "ArrayImages":
        """The first images, at most so many, as an image set."""
        return ArrayImages(self._images[:count], self._path, self._start)

    def read(self, start: int, stop: int) -> Tensor:
        return torch.from_numpy(np.array(self._images[start:stop]))

    @cached_property
    def content_hash(self) -> str:
        digest = hashlib.sha256(repr(self._images.shape).encode())
        for batch in self.batches(BATCH):
            digest.update(batch.numpy().data)
        return digest.hexdigest()

    def batches(self, size: int) -> Iterator[Tensor]:
        for start in range(0, len(self), size):
            yield self.read(start, start + size)


def make_images(
    path: Path, workers: Alone, maker: Maker, batches: Sequence[tuple], name: str
) -> ArrayImages:
    """The images that `write_array` makes, or has made before."""
    write_array(path, workers, maker, batches, name)
    return mapped_images(path)


def published_samples(replicate: Replicate) -> tuple[ArrayImages, Tensor]:
    """A main replicate's published samples, and their labels (M,) int64.

    Raises:
        UserError: they are missing, or not those that were published.
    """
    images, labels = samples.open_samples(replicate.samples)
    named = ArrayImages(images, replicate.samples / samples.IMAGES)
    return named, torch.from_numpy(labels.astype(np.int64))


class CenterCrops:
    """Centre crops of a split of the data set. Those of the training split are what samples are
    compared with, as is usual on ImageNet."""

    def __init__(self, folder: Path, split: str, data: ImageParams):
        self._opened_by = (folder, split, data)
        self.view = View(ImageShards(folder, split), data)
        self.shape = (data.channels, data.image_size, data.image_size)
        self.content_hash = value_hash([tree_hash(folder), split, self.shape])
        self.labels = torch.from_numpy(self.view.images.labels)

    def __len__(self) -> int:
        return len(self.view.images)

    def __reduce__(self) -> tuple[Any, ...]:
        return CenterCrops, self._opened_by  # without the images that it has in memory

    def read(self, start: int, stop: int) -> Tensor:
        return self.view.centers(range(start, stop))

    def batches(self, size: int) -> Iterator[Tensor]:
        return self.view.batches(size)
