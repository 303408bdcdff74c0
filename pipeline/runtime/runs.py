"""Run directories, which hold live checkpoints, and where a run comes from.

DVC deletes a stage's outputs before it runs the stage. A checkpoint that must survive a kill is
therefore kept elsewhere, in `runs/<stage>/<key>/`. The key is a hash of the params and dependencies
that dvc.yaml lists for the stage, so that a run resumes only from a checkpoint of the same run.

A run directory belongs to one process at a time, by a lock that the system frees when it dies.
"""

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.runtime.errors import UserError, cannot_write
from pipeline.runtime.files import read_json, remove_temporary, tree_hash, value_hash, write_json
from pipeline.runtime.project import in_project
from pipeline.runtime.storage import download

KEY = "key.json"  # of a run directory
GIT = 20.0  # seconds that git may take

_held: dict[Path, FileLock] = {}


def run_dir(stage: str, key: dict[str, Any], folder: str = "runs") -> Path:
    """The absolute run directory of that key, which this process holds until it ends. A new one is
    made, with the key in `key.json`; in an old one, partly written files of a killed process are
    removed.

    Args:
        folder: of all run directories.

    Raises:
        UserError: another process holds it, or the store does not answer.
    """
    path = in_project(folder) / stage / value_hash(key)[:16]
    if path not in _held:
        _held[path] = _locked(path, stage)
        remove_temporary(path, below=True)
        download(path)
    if not (path / KEY).exists():  # for people
        write_json(path / KEY, key)
    return path


def _locked(path: Path, stage: str) -> FileLock:
    lock, owner = FileLock(path / ".lock"), path / ".owner.json"
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            stage, f"running already, {_owner(owner)}", "wait until it has ended, or end it"
        ) from None
    except OSError as error:
        raise cannot_write(path, error) from error
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    own = {"pid": os.getpid(), "host": platform.node(), "since": since}
    write_json(owner, own)
    return lock


def _owner(note: Path) -> str:
    """Which process holds a run directory, as it noted there."""
    try:
        by = read_json(note, "pid", "host", "since")
    except UserError:  # it is about to write the note
        return "by another process"
    return f"process {by['pid']} on {by['host']}, since {by['since']}"


def provenance() -> dict[str, str]:
    """The origin of a run, as MLflow tags: commit, dirty flag, DVC stage and lock, host.

    A job gets commit and flag from where it was submitted, since git's history does not travel. The
    flag is "unknown" where nothing can tell.
    """
    commit, dirty = os.environ.get("MASKGIT_COMMIT"), os.environ.get("MASKGIT_DIRTY")
    commit = commit or _git("rev-parse", "HEAD") or "unknown"
    if not dirty:
        changed = _git("status", "--porcelain", "--untracked-files=no")
        dirty = "unknown" if changed is None else str(bool(changed)).lower()
    lock = Path("dvc.lock")
    return {
        "git.commit": commit,
        "git.dirty": dirty,
        "dvc.stage": os.environ.get("DVC_STAGE", ""),
        "dvc.exp": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.lock": tree_hash(lock)[:16] if lock.exists() else "none",
        "host": platform.node(),
    }


def _git(*command: str) -> str | None:
    """The output of a git command; None without git or a repository, or if it takes too long."""
    try:
        result = subprocess.run(
            ("git", *command),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=GIT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if result.returncode else result.stdout.strip()
