"""Records which run made each stage's results (`results/sources/<stage>.json`), and finds results
that are out of date according to dvc.lock."""

import hashlib
import json
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.runtime import dag
from pipeline.runtime.dag import HERE, PARAMS_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import is_ignored, read_yaml, value_hash, write_json
from pipeline.runtime.runs import provenance
from pipeline.runtime.trials import Machine

SOURCES = Path("results/sources")
SHOWN = 3  # a message names at most this many params

Record = dict[str, Any]  # how a stage's results were made, with the keys in `write_record`
OutOfDate = dict[str, str]  # stage -> why its results are out of date
NO_RESULTS = "left no results"  # the stage never ran, or failed


def write_record(
    stage: str, run_id: str, key: dict[str, Any], started: float, workers: list[Machine]
) -> None:
    """Write a JSON file with the run, commit, params and machines that made a stage's results.
    `key` is from `dag.stage_key`; `started` is `time.monotonic()` at the stage's start."""
    import psutil
    import torch

    tags = provenance()
    record = {
        "run_id": run_id,
        "key": value_hash(key),
        "params": key["params"],
        "commit": tags["git.commit"],
        "dirty": {"true": True, "false": False}.get(tags["git.dirty"]),  # null: unknown
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - started, 1),
        "workers": workers,
        "host": tags["host"],
        "cpus": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "versions": {"python": platform.python_version(), "torch": torch.__version__}
        | {name: version(name) for name in ("ray", "mlflow")},
    }
    write_json(SOURCES / f"{stage}.json", record)


def out_of_date(root: Path = HERE) -> OutOfDate:
    """The stages whose results are out of date, and why, in the order of dvc.yaml. A stage is out
    of date if it has no results, if its params or inputs differ from those in dvc.lock, or if it
    depends on a stage that is out of date. Edited code does not count, since
    `dvc commit` may have accepted the edit. If dvc.lock is missing, no stage is out of date."""
    if not (locked := _locked(root)):
        return {}
    made, found = dag.makers(root), OutOfDate()
    current = {k: v for entry in locked.values() for k, v in _hashes(entry, "outs").items()}
    for path in made:  # dvc.lock has no hashes of files in an output folder
        if path not in current and (root / path).exists():
            current[path] = dvc_hash(root / path)
    for stage in dag.read_stages(root):
        if SOURCES / f"{stage}.json" not in dag.stage_outputs(stage, root):
            continue  # the analysis, which shows the results of the other stages
        if reason := _reason(stage, locked, current, root):
            found[stage] = reason
        elif stale := {made[dep] for dep in dag.stage_deps(stage, root) if made.get(dep) in found}:
            found[stage] = f"used older results of {', '.join(sorted(stale))}"
    return found


def _reason(stage: str, locked: dict[str, Any], current: dict[str, str], root: Path) -> str:
    """Why a stage's own params, inputs or results make it out of date; empty if they do not."""
    if stage not in locked or not (root / SOURCES / f"{stage}.json").exists():
        return NO_RESULTS
    params = dag.flatten(locked[stage].get("params", {}).get(PARAMS_FILE.name, {}))
    changes = dag.differences(params, dag.stage_params(stage, root)).items()
    if shown := [f"{key}: {was}, now {now}" for key, (was, now) in changes]:
        shown[SHOWN:] = ["…"] if len(shown) > SHOWN else []
        return f"ran with other params ({'; '.join(shown)})"
    inputs = _hashes(locked[stage], "deps").items()
    changed = [path for path, known in inputs if current.get(path, known) != known]
    return f"read another version of {', '.join(changed)}" if changed else ""


def _locked(root: Path) -> dict[str, Any]:
    """The stages in dvc.lock; an empty mapping if the file does not exist."""
    path = root / "dvc.lock"
    return read_yaml(path).get("stages", {}) if path.exists() else {}


def _hashes(stage: dict[str, Any], kind: str) -> dict[str, str]:
    return {entry["path"]: entry["md5"] for entry in stage.get(kind, ()) if "md5" in entry}


def dvc_hash(path: Path) -> str:
    """The hash of a file or folder in the format of dvc.lock."""
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    names = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
    listed = [{"md5": dvc_hash(path / n), "relpath": n} for n in names if not is_ignored(Path(n))]
    return f"{hashlib.md5(json.dumps(listed).encode()).hexdigest()}.dir"


def has_inputs(stage: str, folders: Sequence[Path], root: Path = HERE) -> bool:
    """Whether a stage is up to date, and its input `folders` still have the hashes in dvc.lock."""
    inputs = _hashes(_locked(root).get(stage, {}), "deps").items()
    same = (dvc_hash(root / path) == known for path, known in inputs if Path(path) in folders)
    return bool(inputs) and stage not in out_of_date(root) and all(same)


def described(stages: OutOfDate) -> str:
    """One sentence that names the stages that are out of date, each with the reason."""
    groups: dict[str, list[str]] = {}
    for stage, reason in stages.items():
        groups.setdefault(reason, []).append(stage)
    return "; ".join(f"{', '.join(names)} {reason}" for reason, names in groups.items())


def require_current(*stages: str) -> None:
    """Raise a `UserError` if the results of any of the stages are out of date."""
    stale = out_of_date()
    if found := [stage for stage in stages if stage in stale]:
        subject = f"the results of {found[0]} are out of date"
        raise UserError(subject, described(stale), f"run `dvc repro {found[0]}`")
