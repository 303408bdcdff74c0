"""Where the project lies, whose folder outlives every run."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder, by its name or by what links lead to."""
    ways = (Path(os.path.abspath(path)), Path(os.path.realpath(path)))
    places = (os.path.abspath(folder), os.path.realpath(folder))
    return any(way.is_relative_to(place) for way in ways for place in places)


def in_project(path: Path | str) -> Path:
    """The absolute path of a file or folder that must outlive the run.

    `dvc exp run --temp` and `--queue` run in a copy of the project, which they delete in the end;
    DVC_ROOT, which DVC sets for every stage, names the project itself.
    """
    return Path(os.environ.get("DVC_ROOT") or "", path).absolute()


def folder_named(name: str) -> str:
    """A folder as the system takes it, from a path, one that begins with `~`, or a `file://`."""
    address = urlsplit(name)
    if address.scheme == "file" and address.netloc in ("", "localhost") and address.path:
        name = unquote(address.path)
    return os.path.expanduser(name)
