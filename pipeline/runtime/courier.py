"""Copies what changes in run directories to an object store, while a stage works."""

import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from threading import Event, Thread

from pipeline.runtime.store import Away, Stamp, Store, is_copied

ROUND = 10.0  # seconds between two looks at what has changed
LAST = 60.0  # seconds that a stage waits in the end for what is not copied yet, or
SHARE = 0.1  # this part of its own time, if that is longer; and
INTERRUPTED = 1.0  # after Ctrl-C


class Courier:
    """Copies from a thread, until it is closed.

    Args:
        address: of the store.
        storage: the folder of all run directories.
        folders: tells which of them are to be copied.
    """

    def __init__(self, address: str, storage: Path, folders: Callable[[], Iterable[Path]]):
        self.store, self.storage, self.folders = Store(address), storage, folders
        self._known: dict[Path, dict[str, Stamp]] = {}  # what the store has of each
        self._problem = "there was no time"
        self._behind = True  # something may not be copied
        self._closing = Event()
        self._started = time.monotonic()
        self._thread = Thread(target=self._run, name="courier", daemon=True)
        self._thread.start()

    def close(self, interrupted: bool = False) -> str | None:
        """Copy what is left.

        Args:
            interrupted: somebody waits for the end, after Ctrl-C.

        Returns:
            What is not copied, and why; None if all is.
        """
        self._closing.set()
        most = max(LAST, SHARE * (time.monotonic() - self._started))
        self._thread.join(INTERRUPTED if interrupted else most)
        if not self._behind:
            return None
        return (
            f"not all of {self.storage} is copied to {self.store.address} ({self._problem}); it "
            f"stays here, and the next run copies it"
        )

    def _run(self) -> None:
        closing = False
        while not closing:
            self._closing.wait(ROUND)
            closing = self._closing.is_set()  # one more round, when nothing changes any more
            self._behind = True
            try:
                copied = [self._copy(folder) for folder in self.folders()]
                self._behind = not all(copied)
                self._problem = "it changed meanwhile"
            except (Away, OSError) as error:  # nothing that the work should stop for
                self._problem = str(error)

    def _copy(self, folder: Path) -> bool:
        """Let the store have what has changed in a run directory, in the order of the changes.

        Returns:
            Whether it has all of it.
        """
        name, ours = folder.relative_to(self.storage).as_posix(), _files(folder)
        known = self._known.get(folder)
        if known is None:
            theirs = self.store.listed(name)
            known = {
                path: stamp
                for path, stamp in ours.items()
                if path in theirs and theirs[path][0] >= stamp[0] and theirs[path][1] == stamp[1]
            }
            self._known[folder] = known
        for path, stamp in sorted(ours.items(), key=lambda item: item[1]):
            if known.get(path) == stamp:
                continue
            try:
                with open(folder / path, "rb") as source:
                    if _stamp(os.fstat(source.fileno())) != stamp:
                        return False  # what follows belongs to another moment, too
                    self.store.put(source, f"{name}/{path}")
            except FileNotFoundError:
                return False
            known[path] = stamp
        for path in known.keys() - ours.keys():
            self.store.remove(f"{name}/{path}")
            del known[path]
        return True


def _files(folder: Path) -> dict[str, Stamp]:
    """The files that are to be copied, by their paths in the folder."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            inside = path.relative_to(folder).as_posix()
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode) and is_copied(PurePosixPath(inside)):
                found[inside] = _stamp(status)
    return found


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_size
