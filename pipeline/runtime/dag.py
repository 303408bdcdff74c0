"""The params and dependencies that dvc.yaml lists for a stage: their values and contents."""

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_yaml, tree_hash
from pipeline.runtime.hashes import hash_now
from pipeline.runtime.project import lies_in, of_project

DVC_FILE = Path("dvc.yaml")
PARAMS_FILE = Path("params.yaml")
HERE = Path()  # the project's root folder, from which stages run
BRING_BACK = f"bring it back (`git checkout {DVC_FILE}`)"

# Params that name a file, whose content matters and not only its name.
FILE_PARAMS = (
    "tokenizer.pretrained",
    "transformer.pretrained",
    "evaluation.inception_weights",
    "evaluation.vgg_weights",
    "evaluation.reference_statistics",
)

# How a training's batch is shared: what changes with it is the order of sums, and dropout.
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


def stage_code(stage: str) -> tuple[tuple[str, str], ...]:
    """The files and folders of code that dvc.yaml lists for a stage, and the hash of each."""
    made = makers()
    return tuple((dep, _hash(dep)) for dep in stage_deps(stage) if dep not in made)


def _hash(path: Path | str) -> str:
    """Of a file or folder; a large one is read once."""
    return tree_hash(path, hash_now)


def require_unchanged(deps: Iterable[tuple[str, str]], stage: str) -> None:
    """Refuse dependencies that are no longer what they were when the stage began.

    Args:
        deps: the path and the hash of each then.

    Raises:
        UserError: some are not; the line names the first.
    """
    changed = next((dep for dep, known in deps if not _has_hash(dep, known)), None)
    if changed:
        raise UserError(
            f"{changed} changed while {stage} ran, so its results would mix the old and the new; "
            f"run it again"
        )


def require_params(params: Mapping[str, Any], stage: str) -> None:
    """Refuse params that are no longer what they were when the stage began.

    Args:
        params: as `stage_params` gave them then.

    Raises:
        UserError: some are not; the line names the first.
    """
    now = stage_params(stage)
    for key in sorted(now.keys() | params.keys()):
        if now.get(key) != params.get(key):
            raise UserError(
                f"{key} became {str(now.get(key))[:80]} in {PARAMS_FILE} while {stage} ran with "
                f"{str(params.get(key))[:80]}; run it again"
            )


def _has_hash(path: str, known: str) -> bool:
    try:
        return _hash(path) == known
    except (UserError, OSError):  # it is gone, or some file in it just now
        return False


def read_stages(root: Path = HERE) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml, in order.

    Raises:
        UserError: it is missing, or has none.
    """
    file = root / DVC_FILE
    stages = read_yaml(file).get("stages")
    if not (isinstance(stages, dict) and stages) or not all(
        isinstance(name, str) and isinstance(stage, dict) for name, stage in stages.items()
    ):
        raise UserError(f"{file} has no stages; {BRING_BACK}")
    return stages


def _stage(name: str, root: Path = HERE) -> dict[str, Any]:
    stages = read_stages(root)
    if name not in stages:
        raise UserError(f"{DVC_FILE} has no stage '{name}'; it has {', '.join(stages)}")
    return stages[name]


def _listed(stage: str, kind: str, root: Path) -> list[Any]:
    """What dvc.yaml lists for a stage under `params`, `deps` or a kind of outputs, which alone may
    be mappings: of a name to how DVC keeps that output.

    Raises:
        UserError: it is no list of names.
    """
    entries = _stage(stage, root).get(kind)
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise UserError(f"{DVC_FILE}: {kind} of the stage {stage} is no list; {BRING_BACK}")
    for entry in entries:
        named = isinstance(entry, dict) and len(entry) == 1 and kind not in ("params", "deps")
        if not (isinstance(name := next(iter(entry)) if named else entry, str) and name):
            raise UserError(
                f"{DVC_FILE}: {kind} of the stage {stage} lists {str(entry)[:80]}, which is no "
                f"name; {BRING_BACK}"
            )
    return entries


def project_key() -> dict[str, Any]:
    """Everything that the DAG as a whole depends on: all params, and the code that stages list."""
    listed = {dep for stage in read_stages() for dep in stage_deps(stage)}
    code = sorted(listed - makers().keys())
    return {
        "params": flatten(read_yaml(PARAMS_FILE)),
        "deps": {dep: tree_hash(dep) for dep in code if Path(dep).exists()},
    }


def stage_description(stage: str) -> str:
    """What dvc.yaml says that a stage is; empty if it says nothing."""
    return _stage(stage).get("desc", "")


def stage_params(stage: str, root: Path = HERE) -> dict[str, Any]:
    """The params that dvc.yaml lists for a stage, by dotted key."""
    declared, values = _listed(stage, "params", root), read_yaml(root / PARAMS_FILE)
    return flatten({name: _look_up(values, name, stage) for name in declared})


def stage_deps(stage: str, root: Path = HERE) -> list[str]:
    """The files and folders that dvc.yaml lists for a stage; `${key}` is that param's value."""
    values = read_yaml(root / PARAMS_FILE)
    return [
        re.sub(r"\$\{([\w.]+)\}", lambda match: str(_look_up(values, match[1], stage)), dep)
        for dep in _listed(stage, "deps", root)
    ]


def stage_outputs(stage: str, root: Path = HERE) -> list[Path]:
    """The files and folders that dvc.yaml lists as what a stage makes, from the root folder."""
    kinds = ("outs", "metrics", "plots")
    entries = [entry for kind in kinds for entry in _listed(stage, kind, root)]
    return [Path(next(iter(e)) if isinstance(e, dict) else e) for e in entries]


def output_around(path: Path) -> Path | None:
    """The output of another stage that a path is, or lies in; None where there is none, or no
    project of ours."""
    # DVC puts the file before the name of a stage whose dvc.yaml lies in a subfolder.
    own = os.environ.get("DVC_STAGE", "").rpartition(":")[2]
    for root in projects_around(path):
        try:
            others = [stage for stage in read_stages(root) if stage != own]
            outputs = [root / output for s in others for output in stage_outputs(s, root)]
            found = next((output for output in outputs if lies_in(path, output)), None)
        except (UserError, ValueError, OSError):  # it is another's
            continue
        if found:
            return found
    return None


def projects_around(path: Path) -> list[Path]:
    """The root folders of projects: the current folder, and that which a path lies in, by its name
    and by what links lead to."""
    found = [HERE] if os.path.exists(DVC_FILE) else []
    with contextlib.suppress(OSError):  # the current folder was deleted
        for way in (os.path.abspath(path), os.path.realpath(path)):
            root = project_around(Path(way))
            found += [root] if root and root != Path.cwd() else []
    return list(dict.fromkeys(found))


def project_around(path: Path) -> Path | None:
    """The nearest folder around a path that has a dvc.yaml."""
    return next((root for root in path.parents if os.path.exists(root / DVC_FILE)), None)


def makers(root: Path = HERE) -> dict[str, str]:
    """Which stage makes what another depends on, by the dependency's path; code is made by none."""
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
    """A stage and those that it stands on, each after what it needs; all of them for None.

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


def stages_from(stage: str) -> set[str]:
    """A stage and those that stand on it."""
    made_by, found = makers(), {stage}
    for name in read_stages():  # dvc.yaml lists a stage after those that it needs
        if any(made_by.get(dep) in found for dep in stage_deps(name)):
            found.add(name)
    return found


def _look_up(values: Any, dotted: str, stage: str) -> Any:
    for part in dotted.split("."):
        if not isinstance(values, dict) or part not in values:
            raise UserError(
                f"{DVC_FILE}: the stage {stage} lists the param {dotted}, which {PARAMS_FILE} does "
                f"not have; add it there, or bring {DVC_FILE} back (`git checkout {DVC_FILE}`)"
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
