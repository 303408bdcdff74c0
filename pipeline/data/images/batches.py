"""Batches of training images, prepared in advance by a thread or by loader processes."""

import atexit
import os
import signal
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
from pipeline.runtime.process import THREADS, cores, set_up

Batch = tuple[Tensor, Tensor]  # images (b, C, size, size) uint8 and labels (b,) int64


class Batches(Dataset[Batch], ABC):
    """Maps a step to its training batch of images, as a pure function of (seed, step)."""

    def __call__(self, step: int) -> Batch:
        return self.finish(step, self.load(step))

    __getitem__ = __call__

    @abstractmethod
    def load(self, step: int) -> Any:
        """Read, decode and crop the images of a batch. This method is thread-safe: it draws no
        numbers from global random generators."""

    def finish(self, step: int, loaded: Any) -> Batch:
        """Convert the result of `load` to a batch. Call `finish` only while no other thread draws
        random numbers: `finish` may use PyTorch's global generator, whose state it restores."""
        return loaded


class ImageBatches(Batches):
    """Batches of random crops. Each data-parallel worker loads only its own rows of a batch."""

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
    """Return a function that maps a step to its batch. `loaders` processes prepare the next batches
    in advance. If `loaders` is 0, a thread prepares the next batch, but not on a CPU with one core,
    where a thread would slow down training. The first call may pass any step; later calls must pass
    consecutive steps. `device` is the device of the trained model."""
    if loaders:
        return _by_loaders(batches, loaders, device)
    if device.type == "cpu" and cores() == 1:
        return batches
    loaded = Prefetch(batches.load)
    return lambda step: batches.finish(step, loaded(step))


def _by_loaders(batches: Batches, loaders: int, device: torch.device) -> Callable[[int], Batch]:
    """Load batches in advance with a `DataLoader`. The first call of the returned function starts
    the loader processes. They end when the function is deleted or the training process ends."""
    coming: Iterator[Batch] | None = None

    def next_batch(step: int) -> Batch:
        nonlocal coming
        if coming is None:
            loader = DataLoader(
                batches,
                sampler=count(step),
                batch_size=None,  # an item of `batches` is already a batch
                num_workers=loaders,
                pin_memory=device.type == "cuda",
                multiprocessing_context="spawn",  # a fork would copy locks held by threads
                worker_init_fn=_set_up_loader,
                generator=torch.Generator(),  # else the loader draws from the global generator
            )
            coming = iter(loader)
        return next(coming)

    return next_batch


def _set_up_loader(number: int) -> None:
    os.environ[THREADS] = "1"  # read by `cores`
    set_up()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training process handles Ctrl-C
    # Before 3.14, Python aborts if it ends while a thread sends a batch.
    atexit.register(os._exit, 0)
