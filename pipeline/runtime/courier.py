"""Copies what changes in run directories to an object store, while a stage works."""

import os
import stat
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path, PurePosixPath
from threading import Event, Thread

from pipeline.runtime.errors import one_line
from pipeline.runtime.store import BY, Sent, Stamp, Store, is_copied, stamp

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
        self._sent: dict[Path, Sent] = {}
        self._missed: dict[Path, set[str]] = {}  # what the store has, and was gone a round ago
        self._problem = "there was no time"  # why not all is copied
        self._behind = True
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
            f"stays here, and is copied when the stage runs again"
        )

    def _run(self) -> None:
        closing = failed = False
        while not closing:
            self._closing.wait(ROUND)
            closing = self._closing.is_set()  # one more round, when nothing changes any more
            self._behind = True
            problems = [self._attempt(folder, closing) for folder in self.folders()]
            self._problem = next(filter(None, problems), "")
            self._behind = bool(self._problem)
            if self._behind and not (failed or closing):
                print(f"{self.store.address}: not copied for now ({self._problem})", flush=True)
            failed = self._behind

    def _attempt(self, folder: Path, closing: bool) -> str:
        """Copy a run directory; why not all of it is copied, in a line, if so."""
        try:
            return "" if self._copy(folder, closing) else "it changed meanwhile"
        except Exception as error:  # nothing that the work should stop for
            return one_line(str(error)) or type(error).__name__

    def _copy(self, folder: Path, closing: bool) -> bool:
        """Let the store have what has changed in a run directory, in the order of the changes.

        Returns:
            Whether it has all of it.
        """
        name, ours = folder.relative_to(self.storage).as_posix(), _files(folder)
        sent = self._sent_of(folder, name)
        for path, changed in sorted(ours.items(), key=lambda item: item[1]):
            if sent.files.get(path) == changed:
                continue
            with open(folder / path, "rb") as source:
                if stamp(os.fstat(source.fileno())) != changed:
                    return False  # what follows belongs to another moment, too
                self.store.put(source, f"{name}/{path}")
            sent.files[path] = changed
            sent.note()
        gone = sent.files.keys() - ours.keys()
        # Who deletes a run directory in the middle of a stage does not mean its copy.
        for path in gone if closing else gone & self._missed.get(folder, set()):
            self.store.remove(f"{name}/{path}")
            del sent.files[path]
            sent.note()
        self._missed[folder] = set(gone)
        return True

    def _sent_of(self, folder: Path, name: str) -> Sent:
        """What the store has of a run directory; it is told whose the copy is from now on."""
        if folder not in self._sent:
            sent = Sent.noted(folder, self.store.address)
            sent.note()
            self.store.put(BytesIO(sent.by.encode()), f"{name}/{BY}")
            self._sent[folder] = sent
        return self._sent[folder]


def _files(folder: Path) -> dict[str, Stamp]:
    """The files that are to be copied, by their paths in the folder.

    Raises:
        OSError: not all of the folder can be seen, or it is no run directory any more.
    """

    def fail(error: OSError) -> None:
        raise error

    found = {}
    for parent, _, names in os.walk(folder, onerror=fail):
        for name in names:
            path = Path(parent, name)
            inside, status = path.relative_to(folder).as_posix(), path.lstat()
            if stat.S_ISREG(status.st_mode) and is_copied(PurePosixPath(inside)):
                found[inside] = stamp(status)
    for own in (".lock", "key.json"):
        (folder / own).stat()
    return found
