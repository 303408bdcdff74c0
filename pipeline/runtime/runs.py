"""Run directories: where live checkpoints lie, keyed by everything the result depends on.

DVC deletes a stage's outputs before it runs, so a checkpoint that must survive a kill lives outside
of them, under `runs/<stage>/<key>/`. The key hashes what DVC itself watches for the stage — the
params and dependencies that dvc.yaml lists — so a run goes on only where it would be the same run.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.layout import RESULTS
from pipeline.params import PARAMS_FILE, read_yaml
from pipeline.runtime.files import tree_hash, value_hash, write_json

# Params that name a file: what it holds matters, not only its name.
FILE_PARAMS = (
    "tokenizer.pretrained",
    "transformer.pretrained",
    "evaluation.inception_weights",
    "evaluation.vgg_weights",
    "evaluation.reference_statistics",
)


def stage_key(stage: str, ignore: Iterable[str] = ()) -> dict[str, Any]:
    """Everything that dvc.yaml says the stage depends on, by value and by content; and what the
    files hold that its params name.

    Args:
        ignore: params, or sections of them, that do not matter to the run in question (the sweep's
            grid does not matter to one trial of it).
    """
    dropped = tuple(ignore)

    def matters(name: str) -> bool:
        return not any(name == d or name.startswith(f"{d}.") for d in dropped)

    deps = read_yaml(Path("dvc.yaml"))["stages"][stage].get("deps", [])
    params = {k: v for k, v in stage_params(stage).items() if matters(k)}
    named = [params[name] for name in FILE_PARAMS if params.get(name)]
    return {
        "params": params,
        "deps": {dep: tree_hash(dep) for dep in deps},
        # One that is not there is whose loader's to say.
        "files": {path: tree_hash(path) for path in named if Path(path).exists()},
    }


def stage_params(stage: str) -> dict[str, Any]:
    """The params that dvc.yaml lists for a stage, by dotted key."""
    declared = read_yaml(Path("dvc.yaml"))["stages"][stage].get("params", [])
    values = read_yaml(PARAMS_FILE)
    return flatten({name: _lookup(values, name) for name in declared})


def run_dir(stage: str, key: dict[str, Any], storage_path: str = "runs") -> Path:
    """The absolute run directory of that key; made, with the key beside it, if it is new."""
    path = Path(storage_path).absolute() / stage / value_hash(key)[:16]
    if not (path / "key.json").exists():
        write_json(path / "key.json", key)
    return path


def provenance() -> dict[str, str]:
    """Where a run came from, as MLflow tags: commit, dirty flag, DVC stage and lock, host."""
    import platform
    import subprocess

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


def write_source(stage: str, run_id: str, key: str, started: float) -> None:
    """Write `results/sources/<stage>.json`: which run, commit, params and machine made the stage's
    results, and how long it took, so that every cell of a table can be traced."""
    import time

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
    write_json(RESULTS / "sources" / f"{stage}.json", source)


def _lookup(values: dict, dotted: str) -> Any:
    for part in dotted.split("."):
        values = values[part]
    return values


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat = {}
    for name, item in value.items():
        flat |= flatten(item, f"{prefix}.{name}" if prefix else name)
    return flat
