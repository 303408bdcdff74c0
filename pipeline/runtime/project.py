"""Where the project lies, whose folder outlives every run."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.runtime.errors import UserError

RUNS = "runs"  # run directories, where `ray.storage_path` names no folder


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


def require_here() -> None:
    """Raises: UserError: the current folder was deleted, may not be looked at, or has a name that
    files of models and records cannot hold."""
    try:
        os.getcwd().encode()
    except UnicodeEncodeError as error:
        raise UserError("the current folder's path is not UTF-8; rename the folder") from error
    except OSError as error:
        raise UserError(
            f"the current folder cannot be read ({error.strerror}); cd to the project's"
        ) from error


def of_project(path: Path | str) -> Path:
    """A file or folder that params name. Git and DVC need not know it, or all that is in it: in a
    copy of the project (`dvc exp run --temp`) it is the project's own, if that has one."""
    own = in_project(path)
    return own if in_project("") != Path.cwd() and os.path.exists(own) else Path(path)


def folder_named(name: str) -> str:
    """A folder as the system takes it, from a path, one that begins with `~`, or a `file://`."""
    address = urlsplit(name)
    if address.scheme == "file" and address.netloc in ("", "localhost") and address.path:
        name = unquote(address.path)
    return os.path.expanduser(name)


def is_store(storage_path: str) -> bool:
    """Whether `ray.storage_path` is the address of an object store."""
    return re.match(r"(?:s3|gs)://", storage_path) is not None


def runs_folder(storage_path: str) -> str:
    """The folder of run directories: `ray.storage_path`, or `runs` where that is an object store,
    which gets copies of checkpoints."""
    return RUNS if is_store(storage_path) else folder_named(storage_path)
