"""Brings what run directories get into an object store, from a thread, while a stage works."""

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event, Thread

from pipeline.runtime.store import Copy, Store
from pipeline.runtime.uris import scrubbed

ROUND = 10.0  # seconds between two looks into the run directories
PAUSE = 300.0  # seconds between two attempts at most, where the store does not answer
LAST = 5.0  # seconds that a stage that has ended waits for it, or
SHARE = 0.1  # this part of its own time, if that is longer
NOT_KEPT = {"tune"}  # Ray Tune's notes, which are not read again
_CHECKPOINT = re.compile("checkpoint_")
Stamp = tuple[int, int]  # nanoseconds of the last change, bytes


class Courier:
    """Copies files of run directories that are new, or change, until it is closed.

    A file that lay there before, and of which there is a copy, is not looked at until it changes: a
    disk may have damaged it meanwhile.

    Args:
        storage: the folder of all run directories.
        folders: gives the run directories that are this process's, in it.
    """

    def __init__(self, store: Store, storage: Path, folders: Callable[[], Iterable[Path]]):
        self.store, self.storage, self._folders = store, storage, folders
        self._stamps: dict[str, Stamp] = {}  # of each file that has its copy, when it was looked at
        self._copies: dict[str, list[Copy]] = {}  # that the store has, by path
        self._known: set[Path] = set()
        self._left, self._problem = 0, ""
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
        own = max(LAST, SHARE * (time.monotonic() - self._started))
        self._thread.join(own if patience is None else patience)
        if not self._thread.is_alive() and not self._left:
            return None
        why = self._problem or "there was no time for them"
        return f"the newest files of runs are not all in {self.store.address} yet ({why})"

    def _run(self) -> None:
        pause, closing = ROUND, False
        while not closing:
            closing = self._closing.is_set()  # one more round after that
            try:
                self._left = 1  # until the round is over
                for folder in list(self._folders()):
                    self._look_at(folder)
                self._left, self._problem, pause = 0, "", ROUND
            except Exception as error:  # nothing that the work should stop for
                self._problem, pause = scrubbed(str(error)), min(PAUSE, 2 * pause)
            self._closing.wait(pause)

    def _look_at(self, folder: Path) -> None:
        if folder not in self._known:
            for copy in self.store.copies(folder.relative_to(self.storage).as_posix()):
                self._copies.setdefault(copy.path, []).append(copy)
            self._known.add(folder)
        for file, stamp in _files(folder):
            path = file.relative_to(self.storage).as_posix()
            if path in self._copies and self._stamps.setdefault(path, stamp) == stamp:
                continue
            try:
                copy = self.store.put(file, path)
            except FileNotFoundError:  # it was removed meanwhile
                continue
            self._stamps[path] = stamp
            self._remove_passed(copy)

    def _remove_passed(self, copy: Copy) -> None:
        """Remove older copies of the file and, of a checkpoint, those of checkpoints before it that
        are gone. Nothing else is removed: what a stage moves away when it ends may not be safe
        where it is."""
        passed = [c for c in self._copies.get(copy.path, ()) if c != copy]
        self._copies[copy.path] = [copy]
        for path in [path for path in self._copies if _of_one_run(path, copy.path)]:
            if not (self.storage / path).exists():
                passed += self._copies.pop(path)
        for old in passed:
            self.store.remove(old)


def _of_one_run(one: str, other: str) -> bool:
    """Whether two files are the same part of two checkpoints of a Ray Train run, each of which has
    a folder of its own there."""
    first, second = Path(one), Path(other)
    runs = {(path.name, path.parents[1]) for path in (first, second)}
    folders = {path.parent.name for path in (first, second)}
    return len(runs) == 1 and len(folders) == 2 and all(map(_CHECKPOINT.match, folders))


def _files(folder: Path) -> list[tuple[Path, Stamp]]:
    """The files of a run directory that outlive a kill, those first that changed first."""
    found = []
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if any(part.startswith(".") or part in NOT_KEPT for part in inside):
            continue
        try:
            stat = path.lstat()
            if path.is_file() and not path.is_symlink():
                found.append((path, (stat.st_mtime_ns, stat.st_size)))
        except OSError:  # it was removed meanwhile
            continue
    return sorted(found, key=lambda entry: entry[1])
