"""What an output may be, by its suffix and its place; looked at before any model is opened."""

import os
import re
from pathlib import Path

from pipeline.api.numbers import a_path, require_apart, require_expanded
from pipeline.runtime.errors import UserError

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


def _suffix(path: Path) -> str:
    """Of an output, in lower case; of `.png` it is that, and not the name of a hidden folder."""
    require_apart("--output", a_path("--output", path))
    require_name("--output", path)
    name = path.name.lower()
    return name if name in SAMPLES else path.suffix.lower()


def require_name(key: str, path: Path) -> None:
    """Raises: UserError: an output has no name of its own, or is no path on this machine."""
    if str(path) == "-":
        raise UserError(f"{key}: -: nothing is written to the terminal; name a file or a folder")
    if re.fullmatch("[a-z][a-z0-9+.-]+:", path.parts[0] if path.parts else "", re.IGNORECASE):
        raise UserError(f"{key}: {path} is no path but an address; name a file or folder here")
    require_expanded(key, path)
    if path.name in ("", ".."):  # the current folder, or one around it
        raise UserError(f"{key}: {path} is a folder that is there; name a new file or folder")
