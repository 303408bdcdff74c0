"""Images as networks see them: decoded, cropped and resized."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.images.pixels import (
    center_crop,
    decode_image,
    in_threads,
    random_resized_crop,
    to_chw,
)
from pipeline.data.images.shards import ImageShards

# The section `data` of the params, or another object with image_size, channels, crop_scale,
# crop_ratio and flip.
ImageParams = Any


class View:
    """The images of a split as (C, size, size) uint8: centre crops, or seeded random crops.

    Args:
        seed: of the random crops.
    """

    def __init__(self, images: ImageShards, data: ImageParams, seed: int = 0):
        self.images, self.data, self.seed = images, data, seed

    def centers(self, indices: Iterable[int]) -> Tensor:
        """Centre crops (len(indices), C, size, size) uint8."""
        return _stacked(self._center, indices)

    def crops(self, indices: Iterable[int], draw: int) -> Tensor:
        """Random crops (len(indices), C, size, size) uint8: the `draw`-th crop of each image, a
        pure function of (seed, the image's key, draw)."""
        return _stacked(partial(self._crop, draw), indices)

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """Centre crops (M, C, size, size) uint8 and labels (M,) of the first `count` images, or of
        all if there are fewer."""
        return self.chosen(range(min(count, len(self.images))))

    def chosen(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Centre crops and labels of the images with these indices."""
        return self.centers(indices), torch.from_numpy(self.images.labels[list(indices)])

    def batches(self, size: int) -> Iterator[Tensor]:
        """Centre crops of the whole split in order, (B, C, size, size) uint8, B at most `size`."""
        for start in range(0, len(self.images), size):
            yield self.centers(range(start, min(start + size, len(self.images))))

    def _center(self, index: int) -> np.ndarray:
        image = decode_image(self.images.read(index)[1], self.data.channels)
        return to_chw(center_crop(image, self.data.image_size))

    def _crop(self, draw: int, index: int) -> np.ndarray:
        key, content = self.images.read(index)
        data, seed = self.data, (self.seed, key, draw)
        image = decode_image(content, data.channels)
        cropped = random_resized_crop(
            image, data.image_size, data.crop_scale, data.crop_ratio, data.flip, seed
        )
        return to_chw(cropped)


def _stacked(crop: Callable[[int], np.ndarray], indices: Iterable[int]) -> Tensor:
    return torch.from_numpy(np.stack(in_threads(crop, map(int, indices))))
