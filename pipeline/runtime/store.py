"""Copies of run directories in an object store, so that a machine that is lost costs minutes.

`ray.storage_path` may be an address that pyarrow's file systems take, such as `s3://bucket/folder`.
Stages then work in `runs`, as they do without one, since locks, renames and mapped files need a
file system. What changes there is copied to the store while they work (`courier`), and a run
directory that this machine lacks is brought from it.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.files import atomic_file
from pipeline.runtime.patience import unless_late

PATIENCE = 60.0  # seconds in which nothing arrives, until a store is given up
REASON = 300  # characters of what a library says of it
CHUNK = 2**24  # bytes that are moved at a time
NOT_COPIED = {".lock", ".owner.json", "key.json"}  # of this machine alone
TUNE = "tune"  # Ray Tune's notes, which are not read again

Stamp = tuple[int, int]  # when a file changed, in nanoseconds since 1970, and its size in bytes


class Away(Exception):
    """The store does not answer, or refuses."""


class Store:
    """A folder in an object store, which has a folder for each run directory."""

    def __init__(self, address: str):
        self.address = address
        self.moved = time.monotonic()  # when something arrived last
        self._made: set[str] = set()  # folders

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system, and the folder in it."""
        from pyarrow.fs import FileSystem

        return FileSystem.from_uri(self.address)

    def listed(self, name: str) -> dict[str, Stamp]:
        """The files of a run directory, by their paths in it.

        Raises:
            Away: it cannot be told.
        """
        from pyarrow.fs import FileSelector, FileType

        with _named():
            system, root = self._opened
            base = f"{root}/{name}/"
            found = system.get_file_info(FileSelector(base, allow_not_found=True, recursive=True))
        self.moved = time.monotonic()
        files = {
            info.path.removeprefix(base): (info.mtime_ns or 0, info.size)
            for info in found
            if info.type == FileType.File
        }
        return {path: stamp for path, stamp in files.items() if is_copied(PurePosixPath(path))}

    def fetch(self, name: str, path: Path, changed: int) -> None:
        """Copy a file from the store; here it gets the time at which it changed there.

        Raises:
            Away: it cannot be read.
            UserError: it cannot be written.
        """
        with _named():
            system, root = self._opened
            source = system.open_input_stream(f"{root}/{name}")
        with source, atomic_file(path) as temporary:
            with open(temporary, "wb") as target:
                for chunk in self._chunks(source):
                    target.write(chunk)
            os.utime(temporary, ns=(changed, changed))

    def put(self, source: BinaryIO, name: str) -> None:
        """Copy an open file to the store.

        Raises:
            Away: it cannot be written.
        """
        with _named():
            system, root = self._opened
            self.make(str(PurePosixPath(name).parent))
            with system.open_output_stream(f"{root}/{name}") as target:
                for chunk in self._chunks(source):
                    target.write(chunk)
                    target.flush()  # or all of the file would wait in memory

    def make(self, name: str) -> None:
        """Make a folder, which a bucket that is not there, or may not be written, does not allow.

        Raises:
            Away: it cannot be made.
        """
        with _named():
            system, root = self._opened
            if name not in self._made:
                system.create_dir(f"{root}/{name}", recursive=True)
            self._made.add(name)

    def remove(self, name: str) -> None:
        """Remove a file from the store, where it may be gone already.

        Raises:
            Away: it cannot be removed.
        """
        with _named():
            system, root = self._opened
            with suppress(FileNotFoundError):
                system.delete_file(f"{root}/{name}")

    def _chunks(self, source: Any) -> Iterator[bytes]:
        while chunk := _read(source):
            self.moved = time.monotonic()
            yield chunk


def _read(source: Any) -> bytes:
    with _named():
        return source.read(CHUNK)


@contextmanager
def _named() -> Iterator[None]:
    """Whatever goes wrong in the block is the store's."""
    try:
        yield
    except Away:
        raise
    except Exception as error:  # Arrow has many names for it
        raise Away(one_line(str(error))[:REASON]) from error


def is_copied(path: PurePosixPath) -> bool:
    """Whether a file of a run directory, by its path there, belongs to the copy: what is being
    written does not, nor what is of this machine alone, nor a path that leads elsewhere."""
    parts = path.parts
    if not parts or path.is_absolute() or ".." in parts or TUNE in parts:
        return False
    return path.name not in NOT_COPIED and not any(part.endswith(".tmp") for part in parts)


def bring(address: str, name: str, folder: Path) -> None:
    """Copy a run directory from the store, if that has one.

    Raises:
        UserError: the store does not answer, or refuses; or the disk is full.
    """
    store = Store(address)

    def fetch_all() -> int:
        listed = store.listed(name)
        store.make(name)  # before any work that could not be copied
        for path, (changed, _) in sorted(listed.items(), key=lambda item: item[1]):
            store.fetch(f"{name}/{path}", folder / path, changed)
        return len(listed)

    try:
        count = unless_late(fetch_all, lambda: time.monotonic() - store.moved > PATIENCE)
    except (Away, TimeoutError) as error:
        reason = str(error) or f"nothing arrived for {PATIENCE:g} s"
        raise UserError(
            f"ray.storage_path: {address} cannot be used ({reason}); see that the bucket is there "
            f"and its keys are set (as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or set a "
            f"folder such as runs, and run again"
        ) from error
    if count:
        print(f"{folder}: {count} files brought from {address}", flush=True)
