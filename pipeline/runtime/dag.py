"""The stages of dvc.yaml: their params by value, their dependencies by content, their outputs."""

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import file_hash, read_yaml, tree_hash
from pipeline.runtime.project import lies_in, of_project

DVC_FILE = Path("dvc.yaml")
PARAMS_FILE = Path("params.yaml")
HERE = Path()  # the project's root folder, from which stages run

# Params that name a file: a stage depends on the file's content too.
FILE_PARAMS = (
    "tokenizer.pretrained",
    "transformer.pretrained",
    "evaluation.inception_weights",
    "evaluation.vgg_weights",
    "evaluation.reference_statistics",
)

# How a training's batch is split among workers: it changes the order of sums, and dropout.
WHO = (
    *("ray.num_workers", "ray.cpus_per_worker", "training.accumulate"),
    *("sweep.workers_per_trial", "cas.workers_per_classifier"),
)


def stage_key(stage: str, ignore: Iterable[str] = ()) -> dict[str, Any]:
    """Everything that a stage depends on: its params by value, its dependencies by content, and the
    content of the files that its params name.

    Args:
        ignore: params and dependencies, or sections and folders of them, to leave out (one trial of
            the sweep does not depend on the sweep's grid).
    """
    params = {k: v for k, v in stage_params(stage).items() if not _is_in(k, ignore)}
    named = {name: of_project(name) for name in _named(params)}
    return {
        "params": params,
        "deps": {d: _hash(d) for d in stage_deps(stage) if not _is_in(d, ignore)},
        # A file that is missing is left out: the code that loads it reports that.
        "files": {name: _hash(file) for name, file in named.items() if os.path.exists(file)},
    }


def part_of_key(key: Mapping[str, Any], ignore: Iterable[str]) -> dict[str, Any]:
    """What `stage_key` leaves of a stage's whole key."""
    params, deps = (
        {name: value for name, value in key[kind].items() if not _is_in(name, ignore)}
        for kind in ("params", "deps")
    )
    named = _named(params)
    files = {name: known for name, known in key["files"].items() if name in named}
    return {"params": params, "deps": deps, "files": files}


def _is_in(name: str, dropped: Iterable[str]) -> bool:
    return any(name == d or name.startswith((f"{d}.", f"{d}/")) for d in dropped)


def _named(params: Mapping[str, Any]) -> list[str]:
    """The files that params name."""
    return [str(params[name]) for name in FILE_PARAMS if params.get(name)]


def project_key() -> dict[str, Any]:
    """Everything that the DAG as a whole depends on: all params, and the code that stages list."""
    listed = {dep for stage in read_stages() for dep in stage_deps(stage)}
    code = sorted(listed - makers().keys())
    return {
        "params": flatten(read_yaml(PARAMS_FILE)),
        "deps": {dep: _hash(dep) for dep in code if Path(dep).exists()},
    }


def stage_code(stage: str) -> tuple[tuple[str, str], ...]:
    """The files and folders of code that dvc.yaml lists for a stage, and the hash of each."""
    made = makers()
    return tuple((dep, _hash(dep)) for dep in stage_deps(stage) if dep not in made)


def _hash(path: Path | str) -> str:
    """The hash of a file or folder; a file is read again only if its size or time changed."""
    return tree_hash(path, lambda file: _file_hash(file.absolute(), *_size_and_time(file.stat())))


_size_and_time = attrgetter("st_size", "st_mtime_ns")


@lru_cache(maxsize=10_000)
def _file_hash(path: Path, size: int, modified: int) -> str:
    return file_hash(path)


def require_unchanged(deps: Iterable[tuple[str, str]], stage: str) -> None:
    """Refuse dependencies that changed since the stage began: DVC looks only after the stage has
    ended, and would take its results for those of the new files.

    Args:
        deps: the path and the hash of each then.

    Raises:
        UserError: one changed or is gone; its path is the subject.
    """
    for path, known in deps:
        try:
            same = _hash(path) == known
        except (UserError, OSError):  # it is gone
            same = False
        if not same:
            raise UserError(
                path, f"changed while {stage} ran, so its results would mix both", "run it again"
            )


def require_params(params: Mapping[str, Any], stage: str) -> None:
    """Refuse params that changed in params.yaml since the stage began.

    Args:
        params: as `stage_params` gave them then.

    Raises:
        UserError: one changed; its key is the subject.
    """
    for key, (was, now) in differences(params, stage_params(stage)).items():
        raise UserError(
            key,
            f"became {str(now)[:80]} in {PARAMS_FILE} while {stage} ran with {str(was)[:80]}",
            "run it again",
        )


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The params that differ, each with both values; None for one that is missing."""
    keys = sorted(was.keys() | now.keys())
    return {k: (was.get(k), now.get(k)) for k in keys if was.get(k) != now.get(k)}


def read_stages(root: Path = HERE) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml, in order.

    Raises:
        UserError: the file is missing, or has no stages.
    """
    file = root / DVC_FILE
    stages = read_yaml(file).get("stages")
    if not isinstance(stages, dict) or not all(isinstance(s, dict) for s in stages.values()):
        raise UserError(str(file), "has no stages", f"restore it (`git checkout {DVC_FILE}`)")
    return stages


def _stage(name: str, root: Path = HERE) -> dict[str, Any]:
    stages = read_stages(root)
    if name not in stages:
        raise UserError(
            str(DVC_FILE), f"has no stage '{name}'", f"its stages are {', '.join(stages)}"
        )
    return stages[name]


def stage_description(stage: str) -> str:
    """What dvc.yaml says that a stage is; empty if it says nothing."""
    return _stage(stage).get("desc", "")


def stage_params(stage: str, root: Path = HERE) -> dict[str, Any]:
    """The params that dvc.yaml lists for a stage, by dotted key."""
    values = read_yaml(root / PARAMS_FILE)
    listed = _stage(stage, root).get("params", [])
    return flatten({name: _look_up(values, name, stage) for name in listed})


def stage_deps(stage: str, root: Path = HERE) -> list[str]:
    """The files and folders that dvc.yaml lists for a stage; `${key}` is that param's value."""
    values = read_yaml(root / PARAMS_FILE)
    return [
        re.sub(r"\$\{([\w.]+)\}", lambda match: str(_look_up(values, match[1], stage)), dep)
        for dep in _stage(stage, root).get("deps", [])
    ]


def stage_outputs(stage: str, root: Path = HERE) -> list[Path]:
    """The files and folders that dvc.yaml lists as outputs of a stage, relative to the root."""
    listed = _stage(stage, root)
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in listed.get(kind) or []]
    return [Path(next(iter(e)) if isinstance(e, dict) else e) for e in entries]


def output_around(path: Path) -> Path | None:
    """The output of another stage that a path is, or lies in; None where there is none."""
    # DVC puts the file before the name of a stage whose dvc.yaml lies in a subfolder.
    own = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
    for root in projects_around(path):
        try:
            others = [stage for stage in read_stages(root) if stage != own]
            outputs = [root / output for s in others for output in stage_outputs(s, root)]
        except (UserError, ValueError, OSError):  # a dvc.yaml of another project
            continue
        if found := next((output for output in outputs if lies_in(path, output)), None):
            return found
    return None


def projects_around(path: Path) -> list[Path]:
    """The root folders of projects: the current folder, and the nearest folder with a dvc.yaml
    around a path, by its name and with links resolved."""
    found = [HERE] if DVC_FILE.exists() else []
    for way in (Path(os.path.abspath(path)), Path(os.path.realpath(path))):
        root = next((parent for parent in way.parents if (parent / DVC_FILE).exists()), HERE)
        found += [root] if root not in (HERE, Path.cwd()) else []
    return list(dict.fromkeys(found))


def makers(root: Path = HERE) -> dict[str, str]:
    """The stage that makes each dependency of another, by the dependency's path; code has none."""
    stages = read_stages(root)
    outputs = {output: stage for stage in stages for output in stage_outputs(stage, root)}
    needed = dict.fromkeys(dep for stage in stages for dep in stage_deps(stage, root))
    return {
        dep: outputs[place]
        for dep in needed
        for place in (Path(dep), *Path(dep).parents)
        if place in outputs
    }


def stages_up_to(stage: str | None) -> list[str]:
    """A stage and those that it depends on, each after what it needs; all of them for None.

    Raises:
        UserError: dvc.yaml has no such stage.
    """
    order, made_by = list(read_stages()), makers()
    if stage is None:
        return order
    _stage(stage)
    needed = {stage}
    for name in reversed(order):  # dvc.yaml lists a stage after those that it needs
        if name in needed:
            needed |= {made_by[dep] for dep in stage_deps(name) if dep in made_by}
    return [name for name in order if name in needed]


def stages_from(*stages: str, root: Path = HERE) -> set[str]:
    """Stages and those that depend on them."""
    made_by, found = makers(root), set(stages)
    for name in read_stages(root):  # dvc.yaml lists a stage after those that it needs
        if any(made_by.get(dep) in found for dep in stage_deps(name, root)):
            found.add(name)
    return found


def _look_up(values: Any, dotted: str, stage: str) -> Any:
    for part in dotted.split("."):
        if not isinstance(values, dict) or part not in values:
            raise UserError(
                dotted, f"missing in {PARAMS_FILE}, and {stage} in {DVC_FILE} lists it", "add it"
            )
        values = values[part]
    return values


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= flatten(item, f"{prefix}.{name}" if prefix else name)
    return flat
