"""A training's batches, prepared while those before them are in use: by a thread of its process, or
by processes of its own."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from multiprocessing import connection, forkserver, parent_process, resource_tracker
from threading import Thread
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.data.images.batches import Batch, Batches
from pipeline.data.prefetch import Prefetch
from pipeline.runtime.errors import UserError
from pipeline.runtime.process import cores, set_up

# Of more loaders than cores: how many a worker may have is checked with its other params.
warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)

WARNINGS = "PYTHONWARNINGS"
AHEAD = 2  # batches that each loader prepares ahead


def prepared(batches: Batches, loaders: int, device: torch.device) -> Callable[[int], Batch]:
    """The same batches, by step, each prepared ahead. A step out of order waits for its batch.

    Args:
        loaders: processes that decode, crop and augment. Without any a thread decodes and crops,
            and whoever asks for a batch augments. A process that has one core, and computes on it,
            makes each batch when it is asked for: a thread would only take turns with it, at other
            moments in each of several workers, who wait for each other.
        device: that the batches are for.
    """
    if loaders:
        return ByLoaders(batches, loaders, device)
    return batches if device.type == "cpu" and cores() == 1 else ByThread(batches)


class ByThread:
    """Batches that a thread reads, decodes and crops."""

    def __init__(self, batches: Batches):
        self._batches = batches
        self._cropped = Prefetch(lambda step: batches.crop(step, batches.read(step)))

    def __call__(self, step: int) -> Batch:
        return self._batches.finish(step, self._cropped(step))


class ByLoaders:
    """Batches that a thread reads, and processes make. They start with the first batch that is
    asked for, and end with this object or its process, however that ends.

    Reading stays here: a batch has pictures of nearly every row group of a window, all of which
    each of the processes would read and keep.
    """

    def __init__(self, batches: Batches, loaders: int, device: torch.device):
        self._batches, self._loaders, self._device = batches, loaders, device
        self._read = Prefetch(batches.read)
        self._coming: Iterator[Any] = iter(())
        self._next = -1  # the step of what comes next

    def __call__(self, step: int) -> Batch:
        """The batch of a step.

        Raises:
            UserError: a picture cannot be read, or a process was lost.
        """
        if step != self._next:
            self._coming = iter(())  # those that prepare other steps end first
            self._coming = self._begin(step)
        self._next = -1
        try:
            batch = next(self._coming)
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error):
                raise
            raise UserError(
                "a process that prepares pictures was lost, killed perhaps where memory or "
                "/dev/shm is full; lower ray.loaders_per_worker or make room, and run again to go "
                "on from the last checkpoint"
            ) from error
        if isinstance(batch, UserError):
            try:
                raise batch
            finally:
                del batch  # which holds this frame, and so would keep its loaders
        self._next = step + 1
        images, labels = batch
        return images, labels

    def _begin(self, step: int) -> Iterator[Any]:
        parts = (self._batches, *vars(self._batches).values())
        _start_server(sorted({type(part).__module__ for part in parts}))
        return iter(
            DataLoader(
                _Maker(self._batches),
                sampler=_stored(self._read, step),
                batch_size=None,  # an item is a batch
                collate_fn=_as_it_is,
                num_workers=self._loaders,
                prefetch_factor=AHEAD,
                pin_memory=self._device.type == "cuda",
                multiprocessing_context="forkserver",
                worker_init_fn=_set_up_loader,
                generator=torch.Generator(),  # or the loader would draw a seed from the global one
            )
        )


class _Maker(Dataset):
    """What a loader does: it makes a batch of a step and what was read for it. A `UserError` takes
    the batch's place, since torch would make a traceback of it."""

    def __init__(self, batches: Batches):
        self._batches = batches

    def __getitem__(self, item: tuple[int, Any]) -> Batch | UserError:
        step, stored = item
        if isinstance(stored, UserError):
            return stored
        try:
            return self._batches.finish(step, self._batches.crop(step, stored))
        except UserError as error:
            return error


def _stored(read: Prefetch, first: int) -> Iterator[tuple[int, Any]]:
    """Each step from the first on, and what is stored of its pictures, or the error of reading it:
    that is raised when its step has come."""
    for step in count(first):
        try:
            stored = read(step)
        except UserError as error:
            stored = error
        yield step, stored


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_server(modules: list[str]) -> None:
    """Start the process that loaders are forked from, unless it runs: it has imported what they
    need and does nothing, as what a thread is at does not outlast a fork. Ctrl-C is the training's
    to answer: they are deaf to it, from their first moment.

    Args:
        modules: to import.
    """
    forkserver.set_forkserver_preload(["__main__", *modules])
    _start_tracker()  # which would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_tracker() -> None:
    """Start the process that removes what others leave in shared memory. Where Ctrl-C comes between
    the end of a lock and the word of it, it warns of what it removes, which nobody can act on."""
    quiet, had = "ignore::UserWarning:multiprocessing.resource_tracker", os.environ.get(WARNINGS)
    os.environ[WARNINGS] = f"{had},{quiet}" if had else quiet
    try:
        resource_tracker.ensure_running()
    finally:
        if had is None:
            del os.environ[WARNINGS]
        else:
            os.environ[WARNINGS] = had


def _set_up_loader(number: int) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # as `cores` reads it
    set_up()
    sys.excepthook = _unless_training_ended
    Thread(target=_end_with_training, daemon=True).start()


def _unless_training_ended(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Print an error of a thread that gives batches away, but for those of a training that ends
    while it takes one."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, traceback)


def _end_with_training() -> None:
    """End this process when the training's has ended: torch looks at that only between batches, and
    not while one is on its way."""
    training = parent_process()
    assert training is not None
    connection.wait([training.sentinel])
    os._exit(1)
