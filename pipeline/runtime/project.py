"""Where the project lies, whose folder outlives every run."""

import os
from pathlib import Path


def in_project(path: Path | str) -> Path:
    """The absolute path of a file or folder that must outlive the run.

    `dvc exp run --temp` and `--queue` run in a copy of the project, which they delete in the end;
    DVC_ROOT, which DVC sets for every stage, names the project itself.
    """
    return Path(os.environ.get("DVC_ROOT") or "", path).absolute()
