"""Run directories, which hold live checkpoints, and where a run comes from.

DVC deletes a stage's outputs before it runs the stage. A checkpoint that must survive a kill is
therefore kept elsewhere, in `runs/<stage>/<key>/`. The key is a hash of the params and dependencies
that dvc.yaml lists for the stage, so that a run only goes on from a checkpoint of the same run.

A run directory belongs to one process at a time, by a lock that the system takes from a dead one.
"""

import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.runtime.errors import UserError, cannot_write
from pipeline.runtime.files import (
    read_json,
    remove,
    remove_temporary,
    tree_hash,
    value_hash,
    write_json,
)
from pipeline.runtime.project import in_project
from pipeline.runtime.storage import download

KEY = "key.json"  # of a run directory
GIT = 20.0  # seconds that git may take
_silent: set[str] = set()  # commands of git that did not answer in time

_held: dict[Path, FileLock] = {}


def run_dir(stage: str, key: dict[str, Any], folder: str = "runs") -> Path:
    """The absolute run directory of that key, which is this process's until it ends. A new one is
    made, with the key in `key.json`; what a killed process left half written in another is removed.

    Args:
        folder: of all run directories.

    Raises:
        UserError: another process has it, it is another run's, or the store does not answer.
    """
    path = in_project(folder) / stage / value_hash(key)[:16]
    if path not in _held:
        _held[path] = _locked(path, stage)
        remove_temporary(path, below=True)
        download(path)
    _note_key(path, key)
    return path


def _note_key(path: Path, key: dict[str, Any]) -> None:
    """Note the key, for people, unless it is there. A folder that was moved has another's."""
    note = path / KEY
    if not note.exists():
        write_json(note, key, durable=False)
    known = wanted = json.loads(json.dumps(key))
    with suppress(UserError):  # damaged, which is no harm
        known = read_json(note)
    if known != wanted:
        raise UserError(f"{path} is another run's, as its key.json says; delete it and run again")


def own_folder(folder: Path) -> Path:
    """A folder in a run directory, made where there is none. A link or a file in its place is
    removed: what it leads to is none of ours.

    Raises:
        UserError: it cannot be made.
    """
    if folder.is_symlink() or not folder.is_dir():
        try:
            remove(folder)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error
    return folder


def _locked(path: Path, stage: str) -> FileLock:
    lock, owner = FileLock(path / ".lock"), path / ".owner.json"
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        if owner.exists() and not owner.is_file():
            remove(owner)
    except Timeout:
        raise UserError(
            f"{stage} is running already: {_owner(owner)}; wait until it has ended, or end it"
        ) from None
    except OSError as error:
        raise cannot_write(path, error) from error
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    own = {"pid": os.getpid(), "host": platform.node(), "since": since}
    write_json(owner, own, durable=False)  # of no use once this process is gone
    return lock


def _owner(note: Path) -> str:
    """Which process has a run directory, as it noted there."""
    try:
        by = read_json(note, "pid", "host", "since")
    except UserError:  # it is about to note it, or the note is damaged
        return "by a process that left no note of itself"
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


def _git(command: str, *options: str) -> str | None:
    """What git says; None where there is no git, or no repository that it can read. A command that
    does not answer in time, as of a disk far away, is asked no more."""
    if command in _silent:
        return None
    try:
        result = subprocess.run(
            ("git", command, *options),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=GIT,
        )
    except subprocess.TimeoutExpired:
        _silent.add(command)
        lost = "which commit made them" if command == "rev-parse" else "whether files were changed"
        note = f"note: git {command} took more than {GIT:.0f} s; results do not say {lost}"
        print(note, file=sys.stderr)
        return None
    except OSError:
        return None
    return None if result.returncode else result.stdout.strip()
