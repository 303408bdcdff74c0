"""Resolves paths in the project's folder, and paths that params name."""

import os
from pathlib import Path

RUNS = "runs"  # folder of run directories, unless `ray.storage_path` names a folder


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is in a folder. Each is tried as written and with symbolic links resolved."""
    forms = (os.path.abspath, os.path.realpath)
    return any(Path(a(path)).is_relative_to(b(folder)) for a in forms for b in forms)


def in_project(path: Path | str) -> Path:
    """The absolute path, in the original project, of a file or folder that must outlive the run.
    `dvc exp run --temp` runs in a copy, which DVC deletes; DVC_ROOT is the original's folder."""
    return Path(os.environ.get("DVC_ROOT") or "", path).absolute()


def of_project(path: Path | str) -> Path:
    """The path of a file or folder that a param names: in the original project if it exists there.
    `dvc exp run --temp` runs in a copy of the project, which may lack files that git ignores."""
    own = in_project(path)
    return own if in_project("") != Path.cwd() and os.path.exists(own) else Path(path)


def is_store(storage_path: str) -> bool:
    """Whether `ray.storage_path` is the address of an object store."""
    return storage_path.startswith(("s3://", "gs://"))
