"""Training batches of images."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.images.shards import WINDOW, ImageShards
from pipeline.data.images.views import Encoded, ImageParams, View
from pipeline.data.order import BatchOrder
from pipeline.data.ranks import ALONE, Ranks

Batch = tuple[Tensor, Tensor]  # images (b, C, size, size) uint8 and labels (b,) int64


class Batches(ABC):
    """Batches by step, each a pure function of (seed, step). A batch is made in three parts, which
    may be the work of different threads and processes: it travels, without what it has in memory.
    """

    def __call__(self, step: int) -> Batch:
        return self.finish(step, self.crop(step, self.read(step)))

    @abstractmethod
    def read(self, step: int) -> Any:
        """What is stored of the batch's pictures, in no tensors, which travel by files that are
        open. For one thread of the training's process, in the order of the steps: each row group is
        then read once, and kept in memory once."""

    @abstractmethod
    def crop(self, step: int, stored: Any) -> Any:
        """The same decoded and cropped. For any thread: it draws from generators of its own."""

    @abstractmethod
    def finish(self, step: int, cropped: Any) -> Batch:
        """The batch. For a thread that no other draws beside: it may take torch's global generator,
        whose state it gives back."""


class ImageBatches(Batches):
    """Randomly cropped batches of the data set.

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

    def read(self, step: int) -> tuple[list[Encoded], np.ndarray]:
        indices = self.ranks.rows(self.order(step))
        return self.view.encoded(indices), self.view.images.labels[indices]

    def crop(self, step: int, stored: tuple[list[Encoded], np.ndarray]) -> Batch:
        encoded, labels = stored
        return self.view.cropped(encoded, step), torch.from_numpy(labels)

    def finish(self, step: int, cropped: Batch) -> Batch:
        return cropped
