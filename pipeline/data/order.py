"""Determines the order in which a training run reads its data, and loads batches in advance."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np


class BatchOrder:
    """Maps step k to the indices of the images in its batch, as a pure function of (seed, k). Every
    epoch is a new permutation of all `items` images.

    Args:
        block_start: first index of each block of stored images, then `items`. None for one block.
        window: blocks per group. Each epoch shuffles the blocks, then the images in each group.
            With several groups, each batch is sorted, so that workers seldom read the same block.
    """

    def __init__(
        self,
        items: int,
        batch_size: int,
        seed: int,
        block_start: np.ndarray | None = None,
        window: int = 1,
    ):
        self.items, self.batch_size, self.seed = items, batch_size, seed
        self.block_start = np.array([0, items]) if block_start is None else block_start
        self.window = window
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __call__(self, step: int) -> np.ndarray:
        """The indices (batch_size,) of the images in a step's batch, which may span two epochs."""
        position = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = position // self.items
        chosen = np.concatenate(
            [self._permutation(e)[position[epochs == e] % self.items] for e in np.unique(epochs)]
        )
        return np.sort(chosen) if len(self.block_start) - 1 > self.window else chosen

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, int(epoch)])
            blocks = rng.permutation(len(self.block_start) - 1)
            windows = []
            for first in range(0, len(blocks), self.window):
                chosen = blocks[first : first + self.window]
                items = [np.arange(self.block_start[b], self.block_start[b + 1]) for b in chosen]
                windows.append(rng.permutation(np.concatenate(items)))
            self._epoch, self._order = epoch, np.concatenate(windows)
        return self._order


class Prefetch:
    """Calls `load(step + 1)` in a thread while the caller works with the result of `load(step)`.
    `load` must be a pure function of the step and must not use global random generators."""

    def __init__(self, load: Callable[[int], Any]):
        self._load = load
        self._pool = ThreadPoolExecutor(1)
        self._ahead: dict[int, Future] = {}

    def __call__(self, step: int) -> Any:
        future = self._ahead.pop(step, None) or self._pool.submit(self._load, step)
        self._ahead = {step + 1: self._pool.submit(self._load, step + 1)}
        return future.result()
