"""The folder of the project, which outlives every run, and paths that params name."""

import os
from pathlib import Path

from pipeline.runtime.errors import UserError

RUNS = "runs"  # run directories, where `ray.storage_path` names no folder


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder, by its name or after symbolic links are resolved."""
    forms = (os.path.abspath, os.path.realpath)
    return any(Path(a(path)).is_relative_to(b(folder)) for a in forms for b in forms)


def in_project(path: Path | str) -> Path:
    """The absolute path of a file or folder that must outlive the run. `dvc exp run --temp` and
    `--queue` delete the copy of the project that they run in; DVC_ROOT names the project itself."""
    return Path(os.environ.get("DVC_ROOT") or "", path).absolute()


def require_here() -> None:
    """Raise a `UserError` if the current folder was deleted or cannot be read."""
    try:
        os.getcwd()
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise UserError("the current folder", reason, "cd to the project") from error


def of_project(path: Path | str) -> Path:
    """A file or folder that params name and that git and DVC may not track. In a copy of the
    project (`dvc exp run --temp`) it is taken from the project itself, if it exists there."""
    own = in_project(path)
    return own if in_project("") != Path.cwd() and os.path.exists(own) else Path(path)


def is_store(storage_path: str) -> bool:
    """Whether `ray.storage_path` is the address of an object store."""
    return storage_path.startswith(("s3://", "gs://"))
