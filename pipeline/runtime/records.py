"""The record of what made a stage's results, and which results are out of date by it.

A record holds the params, dependencies and outputs as the stage saw and left them. So two things
can be told without any model or image at hand: whether the params of today are those that a stage
ran with, and whether what it was made from is still what the stage before it left.
"""

import platform
import time
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.runtime.dag import (
    DVC_FILE,
    PARAMS_FILE,
    makers,
    stage_deps,
    stage_outputs,
    stage_params,
)
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import (
    file_hash,
    read_json,
    read_yaml,
    tree_hash,
    value_hash,
    write_json,
)
from pipeline.runtime.machines import Machine
from pipeline.runtime.runs import provenance

SOURCES = Path("results/sources")
SHOWN = 3  # params that a line names


@dataclass(frozen=True)
class Reason:
    """Why a stage is out of date, by itself; all empty where only a stage before it is."""

    missing: bool = False  # it left no record: it failed, or was never run
    params: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # what each was, and is now
    inputs: tuple[str, ...] = ()  # what was made again since it ran
    changed: tuple[str, ...] = ()  # result files that are not those that it wrote


OutOfDate = dict[str, Reason]


def write_record(
    stage: str, run_id: str, key: dict[str, Any], started: float, workers: list[Machine]
) -> None:
    """Write which run, commit, params and machines made a stage's results, from what, and how long
    it took, so that every cell of a table can be traced.

    Args:
        key: the stage's key, as it was when the stage began.
        started: when that was, by a clock that nobody sets (`time.monotonic`).
        workers: the machines that did the work; all else is of the stage's own.
    """
    import psutil
    import torch

    tags = provenance()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    record = {
        "run_id": run_id,
        "key": value_hash(key),
        "params": key["params"],
        "deps": key["deps"],
        "outputs": {path: tree_hash(path) for path in _needed(stage) if Path(path).exists()},
        "commit": tags["git.commit"],
        "dirty": {"true": True, "false": False}.get(tags["git.dirty"]),  # null: unknown
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - started, 1),
        "workers": workers,
        "host": tags["host"],
        "cpus": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,  # with its build
            "ray": version("ray"),
            "mlflow": version("mlflow"),
        },
    }
    write_json(SOURCES / f"{stage}.json", record)


def _needed(stage: str) -> list[str]:
    """What other stages need of its outputs."""
    return [path for path, maker in makers().items() if maker == stage]


def out_of_date() -> OutOfDate:
    """The stages whose results are not of params.yaml as it is now, or not of the results before
    them, in the order of dvc.yaml. Code that was edited since is no reason (`dvc commit` may have
    accepted it); a folder of results without any record is not judged.

    Raises:
        UserError: a record is damaged.
    """
    records = {path.stem: read_json(path, "params") for path in sorted(SOURCES.glob("*.json"))}
    if not records or not DVC_FILE.exists():
        return {}
    made_by = makers()
    stages = [s for s in read_yaml(DVC_FILE)["stages"] if SOURCES / f"{s}.json" in stage_outputs(s)]
    found = {stage: _reason(stage, records, made_by) for stage in stages}

    @cache
    def stands_on(stage: str) -> frozenset[str]:
        direct = frozenset(made_by[dep] for dep in stage_deps(stage) if dep in made_by)
        return direct.union(*map(stands_on, direct))

    bad = {stage for stage, reason in found.items() if reason != Reason()}
    return {stage: found[stage] for stage in stages if bad & ({stage} | stands_on(stage))}


def _reason(stage: str, records: dict[str, dict], made_by: dict[str, str]) -> Reason:
    if stage not in records:
        return Reason(missing=True)
    record, now = records[stage], stage_params(stage)
    was = record["params"]

    def left(path: str) -> str | None:
        """The content that the stage before left there, where it was recorded."""
        return records.get(made_by.get(path, ""), {}).get("outputs", {}).get(path)

    deps, outputs = record.get("deps", {}), record.get("outputs", {})
    return Reason(
        params={k: (was[k], now[k]) for k in now if k in was and was[k] != now[k]},
        inputs=tuple(dep for dep in deps if left(dep) not in (None, deps[dep])),
        # Models and images are too large to be read each time.
        changed=tuple(
            path
            for path in outputs
            if path.startswith("results/")
            and Path(path).exists()
            and file_hash(path) != outputs[path]
        ),
    )


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
        if reason.changed:
            parts.append(f"{', '.join(reason.changed)} is not what {stage} wrote")
    if after := [stage for stage, reason in stages.items() if reason == Reason()]:
        parts.append(f"{', '.join(after)} stand{'s' * (len(after) == 1)} on these")
    return "; ".join(parts)


def require_current(*stages: str) -> None:
    """Refuse to use what one of these stages made where it is out of date.

    Raises:
        UserError: it is.
    """
    stale = out_of_date()
    if found := [stage for stage in stages if stage in stale]:
        raise UserError(
            f"the results of {found[0]} are not of {PARAMS_FILE} as it is now: {described(stale)}; "
            f"run `dvc repro {found[0]}`"
        )
