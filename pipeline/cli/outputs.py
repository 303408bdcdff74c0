"""What the suffix of an output says; looked at before any model is opened."""

import os
from pathlib import Path

from pipeline.api.numbers import a_path
from pipeline.runtime.dag import output_around
from pipeline.runtime.errors import UserError

SAMPLES = (".png", ".gif", ".npz", "")


def sample_format(path: Path) -> str:
    """The suffix of an output of samples.

    Raises:
        UserError: it stands for no format, or the path is none that there may be.
    """
    a_path("--output", path)
    require_apart("--output", path)
    suffix = suffix_of(path)
    if suffix not in SAMPLES:
        raise UserError(
            f"--output: {path} has a suffix that is not written; use .png (a grid), .gif (the "
            f"canvas as it fills), .npz (as the ADM suite reads), or none (a folder of PNGs)"
        )
    return suffix


def require_png(path: Path, *read: Path | None) -> None:
    """Look at an output that is one picture.

    Args:
        read: the files that the command reads, which it must not overwrite.

    Raises:
        UserError: it is another format, one of those files, or none that there may be.
    """
    a_path("--output", path)
    require_apart("--output", path)
    if suffix_of(path) != ".png":
        raise UserError(f"--output: {path} is no .png, which is all that is written; name it so")
    if any(os.path.realpath(path) == os.path.realpath(file) for file in read if file):
        raise UserError(f"--output: {path} is a picture that is read; name another output")


def suffix_of(path: Path) -> str:
    """In lower case; of `.png` it is that, and not the name of a hidden folder."""
    name = path.name.lower()
    return name if name in SAMPLES else path.suffix.lower()


def require_apart(key: str, path: Path) -> None:
    """Refuse an output where DVC deletes what a stage has made.

    Raises:
        UserError: it lies there.
    """
    if folder := output_around(path):
        raise UserError(
            f"{key}: {path} lies in {folder}, which a stage makes and DVC deletes; name another"
        )
