"""Folders that are whole or not there: made aside, and renamed when all in them is on the disk."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.runtime.errors import UserError, cannot_write
from pipeline.runtime.files import remove, temporary_beside, to_disk


@contextlib.contextmanager
def atomic_folder(
    path: Path | str, may_replace: Callable[[Path], bool] = lambda path: True
) -> Iterator[Path]:
    """Like `atomic_file`, for a folder; an existing folder of that name is replaced.

    Args:
        may_replace: asked in the end of an existing one. It may lie where there was none in the
            beginning, as by a name with `..` in it.

    Raises:
        UserError: the folder cannot be written, or may not be replaced.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if os.path.lexists(path) and not may_replace(path):
            raise UserError(f"{path} is there already; give a new folder")
        _take_place(temporary, path)
    except OSError as error:
        raise UserError(cannot_write(path, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_new(folder: Path) -> None:
    """Raises: UserError: something lies where a folder is to be, and no empty folder."""
    if os.path.lexists(folder) and not is_empty(folder):
        raise UserError(f"{folder} is there already and no empty folder; give a new one")


def is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def publish_folder(source: Path, target: Path) -> None:
    """Move a finished folder to `target`, replacing what is there. It is renamed, or copied if the
    target is on another file system; until the target is whole, it stays where it is.

    Raises:
        UserError: the target cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _take_place(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise UserError(cannot_write(target, error)) from error
        with atomic_folder(target) as temporary:
            shutil.copytree(source, temporary, symlinks=True, dirs_exist_ok=True)
        remove(source)


def _take_place(finished: Path, path: Path) -> None:
    """Give a finished folder its final name. Its content is on the disk before the name is: a
    machine that loses power leaves the old content or the new. What has the name already is moved
    aside until then, and comes back where the new one cannot take its place."""
    for folder, _, names in os.walk(finished):
        for name in names:
            to_disk(Path(folder, name))
        to_disk(Path(folder))
    old = temporary_beside(path)
    try:
        if os.path.lexists(path):
            _move_aside(path, old)
        os.replace(finished, path)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.replace(old, path)
        raise
    to_disk(path.parent)
    remove(old)


def _move_aside(path: Path, old: Path) -> None:
    """Rename a folder; one of a container's image has no other name, and is removed."""
    try:
        os.replace(path, old)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        remove(path)


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, in order; nothing where there is none.

    Raises:
        OSError: something else lies there, as a link to nowhere, or the folder cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        if folder.is_symlink():
            raise
        return []
