"""Locks run directories, which hold checkpoints, and describes the origin of a run.

DVC deletes a stage's outputs before it runs the stage. Files that must survive a kill are therefore
in `runs/<stage>/<hash of the key>/`. A stage's key contains its params and the hashes of its
dependencies (`dag.stage_key`), so a run resumes only from checkpoints with the same key. A lock
allows one process at a time to use a run directory; the system frees the lock if the process dies.
"""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.runtime.errors import UserError, cannot_write
from pipeline.runtime.files import remove_temporary, tree_hash, value_hash, write_json
from pipeline.runtime.project import in_project
from pipeline.runtime.storage import download

GIT = 20.0  # seconds that a git command may take

_locks: dict[Path, FileLock] = {}  # run directory -> lock, held by this process


def run_dir(stage: str, key: dict[str, Any], folder: str = "runs") -> Path:
    """Lock the run directory `<folder>/<stage>/<hash of the key>` for this process, and return its
    absolute path. Also write the key to `key.json`, for people to read, and remove temporary files
    of killed processes. Raises a `UserError` if another process has the lock, writing fails, or the
    object store does not answer."""
    path = in_project(folder) / stage / value_hash(key)[:16]
    if path in _locks:
        return path
    lock, owner = FileLock(path / ".lock"), path / ".owner"
    try:
        lock.acquire(timeout=0)
        owner.write_text(f"process {os.getpid()} on {platform.node()}")
    except Timeout:
        by = owner.read_text() if owner.exists() else "an unknown process"
        way_out = "wait until that process ends, or stop it"
        raise UserError(stage, f"already running as {by}", way_out) from None
    except OSError as error:
        raise cannot_write(path, error) from error
    remove_temporary(path, below=True)
    download(path)
    write_json(path / "key.json", key)
    _locks[path] = lock
    return path


def provenance() -> dict[str, str]:
    """The origin of a run, as MLflow tags: the git commit, whether there are uncommitted changes
    (true, false or unknown), the DVC stage, the DVC experiment, dvc.lock's hash, and the host. A
    job with a DVC remote has no git history; `maskgit submit` sends it both git tags' values."""
    changed = _git("status", "--porcelain", "--untracked-files=no")
    dirty = "unknown" if changed is None else str(bool(changed)).lower()
    lock = Path("dvc.lock")
    return {
        "git.commit": os.environ.get("MASKGIT_COMMIT") or _git("rev-parse", "HEAD") or "unknown",
        "git.dirty": os.environ.get("MASKGIT_DIRTY") or dirty,
        "dvc.stage": os.environ.get("DVC_STAGE", ""),
        "dvc.exp": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.lock": tree_hash(lock)[:16] if lock.exists() else "none",
        "host": platform.node(),
    }


def _git(*command: str) -> str | None:
    """The output of a git command; None if the command fails or takes too long."""
    given: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace"}
    try:
        return subprocess.run(("git", *command), check=True, timeout=GIT, **given).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
