"""Run directories, which hold live checkpoints, and the record of which run made a stage's results.

DVC deletes a stage's outputs before it runs the stage. A checkpoint that must survive a kill is
therefore kept elsewhere, in `runs/<stage>/<key>/`. The key is a hash of the params and dependencies
that dvc.yaml lists for the stage, so that a run only goes on from a checkpoint of the same run.
"""

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from pipeline.runtime.dag import stage_params
from pipeline.runtime.files import tree_hash, value_hash, write_json


def run_dir(stage: str, key: dict[str, Any], storage_path: str = "runs") -> Path:
    """The absolute run directory of that key. A new one is made, with the key in `key.json`."""
    path = Path(storage_path).absolute() / stage / value_hash(key)[:16]
    if not (path / "key.json").exists():
        write_json(path / "key.json", key)
    return path


def provenance() -> dict[str, str]:
    """The origin of a run, as MLflow tags: commit, dirty flag, DVC stage and lock, host."""

    def git(*args: str) -> str:
        result = subprocess.run(("git", *args), capture_output=True, text=True, check=False)
        return result.stdout.strip()

    lock = Path("dvc.lock")
    return {
        "git.commit": os.environ.get("MASKGIT_COMMIT") or git("rev-parse", "HEAD") or "unknown",
        "git.dirty": str(bool(git("status", "--porcelain", "--untracked-files=no"))).lower(),
        "dvc.stage": os.environ.get("DVC_STAGE", ""),
        "dvc.exp": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.lock": tree_hash(lock)[:16] if lock.exists() else "none",
        "host": platform.node(),
    }


def write_source(path: Path, stage: str, run_id: str, key: str, started: float) -> None:
    """Write which run, commit, params and machine made a stage's results, and how long it took, so
    that every cell of a table can be traced.

    Args:
        started: when the stage began, in seconds since the epoch.
    """
    import psutil
    import torch

    tags = provenance()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    source = {
        "run_id": run_id,
        "key": key,
        "params": stage_params(stage),
        "commit": tags["git.commit"],
        "dirty": tags["git.dirty"] == "true",
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.time() - started, 1),
        "host": tags["host"],
        "cpus": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
    }
    write_json(path, source)
