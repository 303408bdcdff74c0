"""Images as networks see them: decoded, cropped and resized."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.data.images.crops import center_crop, random_resized_crop
from pipeline.data.images.pixels import decode_image, to_chw
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.threads import in_threads


class ImageParams(Protocol):
    """The params of a view: the section `data` of params.yaml has them."""

    @property
    def image_size(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def crop_scale(self) -> Sequence[float]: ...

    @property
    def crop_ratio(self) -> Sequence[float]: ...

    @property
    def flip(self) -> bool: ...


class Encoded(NamedTuple):
    """An image as it is stored."""

    key: str
    content: bytes


def _stacked(decode: Callable[[Encoded], np.ndarray], encoded: Iterable[Encoded]) -> Tensor:
    return torch.from_numpy(np.stack(in_threads(decode, encoded)))


class View:
    """Loads images of a split as (C, size, size) uint8: the centre, or a seeded random crop.

    Args:
        seed: of the random crops; centre crops have none.
    """

    def __init__(self, images: ImageShards, data: ImageParams, seed: int = 0):
        self.images, self.data, self.seed = images, data, seed

    def centers(self, indices: Iterable[int]) -> Tensor:
        """(len(indices), C, size, size) uint8."""
        return _stacked(self._center, self.encoded(indices))

    def crops(self, indices: Iterable[int], draw: int) -> Tensor:
        """(len(indices), C, size, size) uint8, the `draw`-th random crop of each: a pure function
        of (seed, the image's key, draw)."""
        return self.cropped(self.encoded(indices), draw)

    def encoded(self, indices: Iterable[int]) -> list[Encoded]:
        """Each image as it is stored, read by this thread, so that each row group is read once."""
        return [Encoded(*stored) for stored in self.images.read_each(list(map(int, indices)))]

    def cropped(self, encoded: Iterable[Encoded], draw: int) -> Tensor:
        """The same as `crops`, of images that were read."""
        return _stacked(partial(self._crop, draw), encoded)

    def _center(self, encoded: Encoded) -> np.ndarray:
        return to_chw(center_crop(self._decoded(encoded), self.data.image_size))

    def _decoded(self, encoded: Encoded) -> Image.Image:
        return decode_image(encoded.content, self.data.channels)

    def _crop(self, draw: int, encoded: Encoded) -> np.ndarray:
        image, data, key = self._decoded(encoded), self.data, encoded.key
        seed = (self.seed, key, draw)
        cropped = random_resized_crop(
            image, data.image_size, data.crop_scale, data.crop_ratio, data.flip, seed
        )
        return to_chw(cropped)

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """Centre crops (M, C, size, size) uint8 and labels (M,) of the first `count` images, or of
        all where there are fewer."""
        return self.chosen(range(min(count, len(self.images))))

    def chosen(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The same of the images of these indices."""
        return self.centers(indices), torch.from_numpy(self.images.labels[list(indices)])

    def batches(self, size: int) -> Iterator[Tensor]:
        """Centre crops of the whole split in order, (B, C, size, size) uint8, B at most `size`."""
        for start in range(0, len(self.images), size):
            yield self.centers(range(start, min(start + size, len(self.images))))
