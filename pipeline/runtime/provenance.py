"""Which run made a stage's results, and which results are out of date.

Each stage writes `results/sources/<stage>.json`: run, commit, params, machines, versions and times.
Whether a stage is out of date follows from DVC's own records in `dvc.lock`.
"""

import hashlib
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.runtime.dag import (
    DVC_FILE,
    HERE,
    PARAMS_FILE,
    differences,
    flatten,
    makers,
    read_stages,
    stage_outputs,
    stage_params,
    stages_from,
)
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import is_ignored, read_json, read_yaml, value_hash, write_json
from pipeline.runtime.runs import provenance
from pipeline.runtime.trials import Machine

LOCK_FILE = Path("dvc.lock")
SOURCES = Path("results/sources")
SHOWN = 3  # params that a message names


Record = dict[str, Any]  # what made a stage's results, as `write_record` has it


@dataclass(frozen=True)
class Reason:
    """Why a stage is out of date; all empty if only a stage that it depends on is."""

    missing: bool = False  # it was never run, or failed
    params: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # what each was, and is now
    inputs: tuple[str, ...] = ()  # dependencies that were made again since


OutOfDate = dict[str, Reason]


def write_record(
    stage: str, run_id: str, key: dict[str, Any], started: float, workers: list[Machine]
) -> None:
    """Write what made a stage's results, so that every cell of a table can be traced.

    Args:
        key: the stage's key, as it was when the stage began.
        started: when that was, by `time.monotonic`.
        workers: the machines that did the work.
    """
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
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,  # with its build
            "ray": version("ray"),
            "mlflow": version("mlflow"),
        },
    }
    write_json(SOURCES / f"{stage}.json", record)


def read_records(folder: Path = SOURCES) -> dict[str, Record]:
    """The records of the stages in dvc.yaml, by stage."""
    stages = read_stages() if DVC_FILE.exists() else None
    paths = [path for path in sorted(folder.glob("*.json")) if not stages or path.stem in stages]
    return {path.stem: read_json(path) for path in paths}


def out_of_date(root: Path = HERE) -> OutOfDate:
    """The stages that dvc.lock has no results of, or results of other params than params.yaml has
    now, or of other inputs than its makers left; and the stages that depend on these. In the order
    of dvc.yaml.

    Code that was edited since is no reason (`dvc commit` may have accepted it). Nothing is out of
    date without a dvc.lock: no stage was run by DVC yet.
    """
    if not (locked := _locked(root)):
        return {}
    made_by = makers(root)
    stages = [s for s in read_stages(root) if SOURCES / f"{s}.json" in stage_outputs(s, root)]
    found = {stage: _reason(stage, locked, made_by, root) for stage in stages}
    stale = stages_from(*(s for s, reason in found.items() if reason != Reason()), root=root)
    return {stage: found[stage] for stage in stages if stage in stale}


def _locked(root: Path) -> dict[str, Any]:
    """The stages of dvc.lock; none without one."""
    path = root / LOCK_FILE
    return read_yaml(path).get("stages", {}) if path.exists() else {}


def _reason(stage: str, locked: dict[str, Any], made_by: dict[str, str], root: Path) -> Reason:
    if stage not in locked or not (root / SOURCES / f"{stage}.json").exists():
        return Reason(missing=True)
    was = flatten(locked[stage].get("params", {}).get(PARAMS_FILE.name, {}))
    inputs = _hashes(locked[stage], "deps")
    changed = [
        path
        for path, known in inputs.items()
        if made_by.get(path) in locked
        and (now := _output(path, _hashes(locked[made_by[path]], "outs"), root)) is not None
        and now != known
    ]
    return Reason(params=differences(was, stage_params(stage, root)), inputs=tuple(changed))


def _hashes(stage: dict[str, Any], kind: str) -> dict[str, str]:
    return {entry["path"]: entry["md5"] for entry in stage.get(kind, ()) if "md5" in entry}


def _output(path: str, outputs: dict[str, str], root: Path) -> str | None:
    """The hash of what a stage left at a path; None if nothing tells."""
    if path in outputs:
        return outputs[path]
    # dvc.lock has the hash of the folder that it lies in alone.
    return dvc_hash(root / path) if (root / path).exists() else None


def dvc_hash(path: Path) -> str:
    """The hash of a file or folder as dvc.lock has it."""
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    names = {file.relative_to(path): file for file in path.rglob("*") if file.is_file()}
    listed = [
        {"md5": dvc_hash(file), "relpath": name.as_posix()}
        for name, file in names.items()
        if not is_ignored(name)
    ]
    listed.sort(key=lambda entry: entry["relpath"])
    return f"{hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest()}.dir"


def has_inputs(stage: str, folders: Sequence[Path], root: Path = HERE) -> bool:
    """Whether a stage is up to date, and its inputs lie in these folders as it read them. False if
    DVC did not run the stage."""
    locked = _locked(root)
    if stage not in locked or stage in out_of_date(root):
        return False
    inputs = _hashes(locked[stage], "deps").items()
    there = [(root / path, known) for path, known in inputs if Path(path) in folders]
    return all(path.exists() and dvc_hash(path) == known for path, known in there)


def described(stages: OutOfDate) -> str:
    """In one sentence which stages are out of date, and why."""
    parts = []
    if missing := [stage for stage, reason in stages.items() if reason.missing]:
        parts.append(f"{', '.join(missing)} left no results")
    if others := [stage for stage, reason in stages.items() if reason.params]:
        keys = {k: v for stage in others for k, v in stages[stage].params.items()}
        shown = [f"{k}: {was}, now {now}" for k, (was, now) in list(keys.items())[:SHOWN]]
        more = [f"{len(keys) - SHOWN} more"] if len(keys) > SHOWN else []
        parts.append(f"{', '.join(others)} ran with other params ({'; '.join(shown + more)})")
    for stage, reason in stages.items():
        if reason.inputs and not reason.params:
            parts.append(f"{stage} was made from another {', '.join(reason.inputs)}")
    if after := [stage for stage, reason in stages.items() if reason == Reason()]:
        parts.append(f"{', '.join(after)} depend{'s' * (len(after) == 1)} on these")
    return "; ".join(parts)


def require_current(*stages: str) -> None:
    """Refuse to use what one of these stages made if it is out of date.

    Raises:
        UserError: it is.
    """
    stale = out_of_date()
    if found := [stage for stage in stages if stage in stale]:
        raise UserError(
            f"the results of {found[0]}",
            f"not of {PARAMS_FILE} as it is now: {described(stale)}",
            f"run `dvc repro {found[0]}`",
        )
