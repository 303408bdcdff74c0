"""The record of what made a stage's results, and which results are out of date by it.

A record holds the params, dependencies and outputs as the stage saw and left them. So two things
can be told without any model or image at hand: whether the params of today are those that a stage
ran with, and whether what it was made from is still what the stage before it left.
"""

import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pipeline.runtime.checksums import noted_hashes
from pipeline.runtime.dag import (
    DVC_FILE,
    HERE,
    PARAMS_FILE,
    makers,
    read_stages,
    stage_deps,
    stage_outputs,
    stage_params,
)
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import tree_hash, value_hash, write_json
from pipeline.runtime.folders import entries
from pipeline.runtime.limits import RESULT_BYTES, TEXT
from pipeline.runtime.result_files import Damaged, read_values
from pipeline.runtime.runs import provenance
from pipeline.runtime.trials import Machine

SOURCES = Path("results/sources")
SHOWN = 3  # params that a line names
FINISHED = "%Y-%m-%dT%H:%M:%SZ"

Text = Annotated[str, Field(max_length=TEXT)]


def _inside(path: str) -> str:
    """A path as dvc.yaml has them: nothing else is ever read because a record names it."""
    if Path(path).is_absolute() or ".." in Path(path).parts or Path(path).as_posix() != path:
        raise ValueError("it is no path inside the project")
    return path


Hashes = dict[Annotated[Text, AfterValidator(_inside)], Text]  # by path


class Worker(BaseModel):
    """A machine that worked for a stage; what its note lacked is not known."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Text] = Field(init=False)  # versions

    host: Text = "unknown"
    device: Text = "unknown"


class Record(BaseModel):
    """What made a stage's results. Records of earlier versions may lack what is not `needed` (see
    `read_records`)."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)

    run_id: Text = ""
    key: Text = ""
    params: dict[str, Any] = {}
    deps: Hashes = {}
    outputs: Hashes = {}
    commit: Text = ""
    dirty: bool | None = None  # null: unknown
    finished: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")] = ""
    seconds: Annotated[float, Field(ge=0)] = 0.0
    workers: list[Worker] = []
    host: Text = ""
    cpus: Annotated[int, Field(ge=1)] | None = None  # null: the system does not tell
    memory_gib: Annotated[float, Field(ge=0)] = 0.0
    gpus: list[Text] = []
    versions: dict[str, Text] = {}

    def as_written(self) -> dict[str, Any]:
        """What stands in its file."""
        return self.model_dump(exclude_unset=True)


@dataclass(frozen=True)
class Reason:
    """Why a stage is out of date, by itself; all empty where only a stage before it is."""

    missing: bool = False  # it left no record: it failed, or was never run
    params: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # what each was, and is now
    inputs: tuple[str, ...] = ()  # what was made again since it ran
    changed: tuple[str, ...] = ()  # outputs that are not those that it wrote


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
        "finished": time.strftime(FINISHED, time.gmtime()),
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


def read_records(
    folder: Path = SOURCES, needed: Iterable[str] = (), root: Path = HERE
) -> dict[str, Record]:
    """The records in a folder, by stage. A file that is named as no stage of dvc.yaml is passed
    over: of a stage that is gone since.

    Args:
        needed: fields that each must have.
        root: of the project.

    Raises:
        UserError: a record is damaged, or the folder cannot be read.
    """
    stages = read_stages(root) if (root / DVC_FILE).exists() else None
    try:
        there = entries(folder)
    except OSError as error:  # no record would be read as one that never was
        raise UserError(f"{folder} cannot be read ({error.strerror}); mend it") from error
    records = [path for path in there if path.suffix == ".json"]
    paths = [path for path in records if stages is None or path.stem in stages]
    return {path.stem: _read_record(path, needed) for path in paths}


def _read_record(path: Path, needed: Iterable[str]) -> Record:
    values = read_values(path)
    try:
        record = Record.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Damaged(path, f"is damaged{place and ' in '}{place}: {first['msg']}") from error
    for name in needed:
        if name not in record.model_fields_set:
            raise Damaged(path, f"is damaged: it has no {name}")
    return record


def _require_whole(stage: str, record: Record, made_by: Mapping[str, str], root: Path) -> None:
    """Refuse a record by which nothing of its stage could be judged.

    Args:
        made_by: `makers(root)`.

    Raises:
        UserError: it names other outputs than dvc.yaml, or not all that are needed, or no params.
    """
    path, outputs = root / SOURCES / f"{stage}.json", stage_outputs(stage, root)
    named = [Path(output) for output in record.outputs]
    for output in named:
        if not any(output.is_relative_to(listed) for listed in outputs):
            raise Damaged(path, f"is damaged: {output} is no output of {stage}")
    needed = [Path(dep) for dep, maker in made_by.items() if maker == stage]
    for listed in outputs:
        # A param may choose the file of a folder that another stage needs: any will do.
        asked = any(dep.is_relative_to(listed) for dep in needed)
        if asked and not any(output.is_relative_to(listed) for output in named):
            raise Damaged(path, f"is damaged: it does not name the output {listed}")
    if stage_params(stage, root) and not record.params:
        raise Damaged(path, "is damaged: it names no params")


def out_of_date(root: Path = HERE) -> OutOfDate:
    """The stages whose results are not of params.yaml as it is now, or not of the results before
    them, in the order of dvc.yaml. Code that was edited since is no reason (`dvc commit` may have
    accepted it); a folder of results without any record is not judged.

    Raises:
        UserError: a record is damaged.
    """
    records = read_records(root / SOURCES, root=root)
    if not records or not (root / DVC_FILE).exists():
        return {}
    made_by = makers(root)
    for stage, record in records.items():
        _require_whole(stage, record, made_by, root)
    stages = [s for s in read_stages(root) if SOURCES / f"{s}.json" in stage_outputs(s, root)]
    found = {stage: _reason(stage, records, made_by, root) for stage in stages}

    @cache
    def stands_on(stage: str) -> frozenset[str]:
        direct = frozenset(made_by[dep] for dep in stage_deps(stage, root) if dep in made_by)
        return direct.union(*map(stands_on, direct))

    bad = {stage for stage, reason in found.items() if reason != Reason()}
    return {stage: found[stage] for stage in stages if bad & ({stage} | stands_on(stage))}


def _reason(stage: str, records: dict[str, Record], made_by: dict[str, str], root: Path) -> Reason:
    if stage not in records:
        return Reason(missing=True)
    record, now = records[stage], stage_params(stage, root)
    was, deps, outputs = record.params, record.deps, record.outputs

    def left(path: str) -> str | None:
        """The content that the stage before left there, where it was recorded."""
        before = records.get(made_by.get(path, ""))
        return None if before is None else before.outputs.get(path)

    return Reason(
        params={k: (was[k], now[k]) for k in now if k in was and was[k] != now[k]},
        inputs=tuple(dep for dep in deps if left(dep) not in (None, deps[dep])),
        # Models and images are too large to be read each time: by the hashes beside them.
        changed=tuple(path for path in outputs if _is_changed(root / path, outputs[path])),
    )


def _is_changed(path: Path, was: str) -> bool:
    """Whether an output is there, and another."""
    result = path.suffix in (".csv", ".json") and path.is_file()
    if result and path.stat().st_size > RESULT_BYTES:  # it is none, and its hash might never come
        return True
    return path.exists() and tree_hash(path, noted_hashes()) != was


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
