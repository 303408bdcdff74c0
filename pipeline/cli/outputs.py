"""What an output may be, by its suffix and its place; looked at before any model is opened."""

import os
from pathlib import Path

from pipeline.api.arguments import require_apart, require_name
from pipeline.runtime.errors import UserError, cannot_write
from pipeline.runtime.files import require_new, temporary_beside

SAMPLES = (".png", ".gif", ".npz", "")


def sample_format(path: Path) -> str:
    """The suffix of an output of samples.

    Raises:
        UserError: it stands for no format, DVC deletes what lies there, or the path is none that
            there may be.
    """
    suffix = _suffix(path)
    if suffix not in SAMPLES:
        raise UserError(
            f"--output: {path} has a suffix that is not written; use .png (a grid), .gif (the "
            f"canvas as it fills), .npz (as the ADM suite reads), or none (a folder of PNGs)"
        )
    require_place(path, folder=not suffix)
    return suffix


def require_png(path: Path, *read: Path | None) -> None:
    """Look at an output that is one picture.

    Args:
        read: the files that the command reads, which it must not overwrite.

    Raises:
        UserError: it is another format or one of those files; or as `sample_format`.
    """
    if _suffix(path) != ".png":
        raise UserError(f"--output: {path} is no .png, which is all that is written; name it so")
    if any(os.path.realpath(path) == os.path.realpath(file) for file in read if file):
        raise UserError(f"--output: {path} is a picture that is read; name another output")
    require_place(path)


def _suffix(path: Path) -> str:
    """Of an output, in lower case; of `.png` it is that, and not the name of a hidden folder."""
    require_apart("--output", path)
    require_name("--output", path)
    name = path.name.lower()
    return name if name in SAMPLES else path.suffix.lower()


def require_place(path: Path, folder: bool = False) -> None:
    """Look whether an output can be written, before the work whose result it is.

    Args:
        folder: it is to be a new folder, or an empty one; else a file.

    Raises:
        UserError: something else is there, or nothing can be written there.
    """
    try:
        if folder:
            require_new(path)
        elif path.is_dir():
            raise UserError(f"{path} is a folder; name a file")
        elif path.exists() and not path.is_file():
            raise UserError(f"{path} is a pipe, socket or device; give another path")
        there = next(place for place in path.absolute().parents if os.path.lexists(place))
        tried = temporary_beside(there / path.name)  # as it will be written
        tried.mkdir()
        tried.rmdir()
    except OSError as error:
        raise cannot_write(path, error) from error
