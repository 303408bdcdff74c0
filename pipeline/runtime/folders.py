"""Folders that are written whole or not at all: made aside, flushed to the disk, and renamed."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.runtime.errors import UserError, cannot_write
from pipeline.runtime.files import remove, temporary_beside, to_disk


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Like `atomic_file`, for a folder; an existing folder of that name is replaced.

    Raises:
        UserError: the folder cannot be written.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _take_place(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_new(folder: Path) -> None:
    """Raise a `UserError` unless there is nothing at the path, or an empty folder."""
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is there already and no empty folder; give a new one")


def publish_folder(source: Path, target: Path) -> None:
    """Move a finished folder to `target`, replacing what is there. It is renamed, or copied if the
    target is on another file system; until the target is whole, the source stays.

    Raises:
        UserError: the target cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _take_place(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise cannot_write(target, error) from error
        with atomic_folder(target) as temporary:
            shutil.copytree(source, temporary, symlinks=True, dirs_exist_ok=True)
        remove(source)


def _take_place(finished: Path, path: Path) -> None:
    """Give a finished folder its final name, once its content is on the disk. The old one is moved
    aside until then, and comes back if the new one cannot take its place."""
    for folder, _, names in os.walk(finished):
        for name in (*names, "."):
            to_disk(Path(folder, name))
    old = temporary_beside(path)
    try:
        if os.path.lexists(path):
            os.replace(path, old)
        os.replace(finished, path)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.replace(old, path)
        raise
    to_disk(path.parent)
    remove(old)


def entries(folder: Path) -> list[Path]:
    """The sorted content of a folder; nothing if there is no folder.

    Raises:
        OSError: something else lies there, or the folder cannot be read.
    """
    return sorted(folder.iterdir()) if os.path.lexists(folder) else []
