"""Copies the checkpoints of a stage's trainings into an object store, from a thread."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from pipeline.runtime.limits import CHECKPOINTS
from pipeline.runtime.secrets import redacted
from pipeline.runtime.store import Copy, Store, StoreError, newest_checkpoints

ROUND = 10.0  # seconds between two looks into the run directories
PAUSE = 300.0  # seconds between two attempts at most, where the store does not answer
LAST = 5.0  # seconds that a stage that has ended waits for it, or
SHARE = 0.1  # this part of its own time, if that is longer, but
MOST = 600.0  # no more


class Courier:
    """Copies the newest checkpoint of each training where it is newer than the store's, until it is
    closed; of those that it knows of a training, the store keeps as many as the disk does.

    Args:
        storage: the folder of all run directories.
        folders: gives the run directories that are this process's, in it.
    """

    def __init__(self, store: Store, storage: Path, folders: Callable[[], Iterable[Path]]):
        self.store, self.storage, self._folders = store, storage, folders
        self._copies: dict[str, list[Copy]] = {}  # that the store has, by training, newest first
        self._known: set[Path] = set()  # run directories whose copies are among them
        self._problem: str | None = "there was no time for it"
        self._closing = Event()
        self._started = time.monotonic()
        self._thread = Thread(target=self._run, name="courier", daemon=True)
        self._thread.start()

    def close(self, patience: float | None = None) -> str | None:
        """Copy what is left, as long as that is quick.

        Args:
            patience: seconds to wait at most; None for as many as the stage's own time allows.

        Returns:
            What has no copy, and why; None where all have one.
        """
        self._closing.set()
        own = min(MOST, max(LAST, SHARE * (time.monotonic() - self._started)))
        self._thread.join(own if patience is None else patience)
        if self._thread.is_alive():
            self._problem = self._problem or "there was no time for it"
        if self._problem is None:
            return None
        return f"the last checkpoint may have no copy in {self.store.address} ({self._problem})"

    def _run(self) -> None:
        pause, closing, told = ROUND, False, False
        while not closing:
            closing = self._closing.is_set()  # one more round after that
            self._problem = self._round()
            pause = ROUND if self._problem is None else min(PAUSE, 2 * pause)
            if (self._problem is not None) != told and not closing:
                told = not told
                with suppress(OSError, ValueError):  # nobody listens, or the disk is full
                    print(self._problem or f"{self.store.address} takes copies again", flush=True)
            self._closing.wait(pause)

    def _round(self) -> str | None:
        """Copy what is new; what stood in the way of a copy. The work does not stop for it."""
        problem = None
        for folder in list(self._folders()):
            try:
                problem = self._look_at(folder) or problem
            except StoreError as error:
                return str(error)
            except Exception as error:  # as of a file that cannot be read
                problem = redacted(str(error))
        return problem

    def _look_at(self, folder: Path) -> str | None:
        """Copy what is new in a run directory; why an older copy could not be removed."""
        problem, name = None, folder.relative_to(self.storage).as_posix()
        if folder not in self._known:
            found = self.store.copies(name)
            self._copies |= {training: list(copies) for training, copies in found.items()}
            self._known.add(folder)
        for training, (changed, file) in newest_checkpoints(folder, name).items():
            copies = self._copies.setdefault(training, [])
            if not copies or copies[0].changed < changed:
                try:
                    copy = self.store.put(file, file.relative_to(self.storage).as_posix())
                except FileNotFoundError:  # a newer one has taken its place
                    continue
                copies.insert(0, copy)
            try:
                while len(copies) > CHECKPOINTS:
                    self.store.remove(copies[-1])
                    copies.pop()
            except StoreError as error:
                problem = str(error)
        return problem
