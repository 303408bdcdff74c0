"""Training batches of images, each prepared while the one before it is in use."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from pipeline.data.images.shards import WINDOW, ImageShards
from pipeline.data.images.views import ImageParams, View
from pipeline.runtime.order import BatchOrder
from pipeline.runtime.ranks import ALONE, Ranks


class Prefetched:
    """Calls `load` for a step in a thread, while the result for the step before is in use.

    Args:
        load: a pure function of the step; it draws random numbers from its own generators only.
    """

    def __init__(self, load: Callable[[int], Any]):
        self._load = load
        self._pool = ThreadPoolExecutor(1)
        self._ahead: dict[int, Future] = {}

    def __call__(self, step: int) -> Any:
        future = self._ahead.pop(step, None) or self._pool.submit(self._load, step)
        self._ahead = {step + 1: self._pool.submit(self._load, step + 1)}
        return future.result()


class ImageBatches:
    """Randomly cropped training batches; batch k is a pure function of (seed, k).

    Args:
        ranks: the workers that share each batch; this one reads its own rows.
    """

    def __init__(
        self,
        images: ImageShards,
        data: ImageParams,
        batch_size: int,
        seed: int,
        ranks: Ranks = ALONE,
    ):
        self.view, self.ranks = View(images, data, seed), ranks
        self.order = BatchOrder(len(images), batch_size, seed, images.group_start, WINDOW)
        self._loaded = Prefetched(self._load)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (b, C, size, size) uint8 and labels (b,) int64 of step `step`."""
        return self._loaded(step)

    def _load(self, step: int) -> tuple[Tensor, Tensor]:
        indices = self.ranks.rows(self.order(step))
        return self.view.crops(indices, step), torch.from_numpy(self.view.images.labels[indices])
