"""A training's batches of images, prepared in advance by a thread of the training's process or by
loader processes."""

import os
import signal
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.data.images.shards import WINDOW, ImageParams, ImageShards, View
from pipeline.data.order import BatchOrder, Prefetch
from pipeline.data.ranks import ALONE, Ranks
from pipeline.runtime.errors import UserError
from pipeline.runtime.process import THREADS, cores, set_up

# Params are checked for more loaders than cores.
warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)

Batch = tuple[Tensor, Tensor]  # images (b, C, size, size) uint8 and labels (b,) int64


class Batches(Dataset[Batch], ABC):
    """Batches by step; each is a pure function of (seed, step)."""

    def __call__(self, step: int) -> Batch:
        return self.finish(step, self.load(step))

    __getitem__ = __call__

    @abstractmethod
    def load(self, step: int) -> Any:
        """Read, decode and crop the images of a batch. Any thread may call it, since it has random
        generators of its own."""

    def finish(self, step: int, loaded: Any) -> Batch:
        """Finish the batch. Call only when no other thread draws random numbers: it may use
        PyTorch's global generator, and restores its state."""
        return loaded


class ImageBatches(Batches):
    """Randomly cropped batches of the data set. Each of the `ranks` loads its rows of a batch."""

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

    def load(self, step: int) -> Batch:
        indices = self.ranks.rows(self.order(step))
        return self.view.crops(indices, step), torch.from_numpy(self.view.images.labels[indices])


def prepared(batches: Batches, loaders: int, device: torch.device) -> Callable[[int], Batch]:
    """Prepare batches in advance. The returned function takes consecutive steps, from any step on.

    Args:
        loaders: processes that load and finish batches. With none, a thread loads them; but on a
            CPU of one core each batch is made when it is asked for, since a thread would only
            compete with the training.
        device: of the training.
    """
    if loaders:
        return _by_loaders(batches, loaders, device)
    if device.type == "cpu" and cores() == 1:
        return batches
    loaded = Prefetch(batches.load)
    return lambda step: batches.finish(step, loaded(step))


def _by_loaders(batches: Batches, loaders: int, device: torch.device) -> Callable[[int], Batch]:
    """Batches of a `DataLoader`. Its processes start with the first batch that is requested, and
    end with this function or with the training's process."""
    coming: Iterator[Batch] | None = None

    def next_batch(step: int) -> Batch:
        nonlocal coming
        try:
            if coming is None:
                loader = DataLoader(
                    batches,
                    sampler=count(step),
                    batch_size=None,  # an item is a batch already
                    num_workers=loaders,
                    pin_memory=device.type == "cuda",
                    multiprocessing_context="spawn",  # a fork would copy locks of threads
                    worker_init_fn=_set_up_loader,
                    generator=torch.Generator(),  # else it would draw from the global generator
                )
                coming = iter(loader)
            images, labels = next(coming)
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error):
                raise
            raise UserError(
                "a process that prepares images was lost",
                "it may have been killed because memory or /dev/shm is full",
                "lower ray.loaders_per_worker or make room, and run again to resume",
            ) from error
        return images, labels

    return next_batch


def _set_up_loader(number: int) -> None:
    os.environ[THREADS] = "1"  # as `cores` reads it
    set_up()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training answers Ctrl-C
