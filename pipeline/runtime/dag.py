"""Reads the stages in dvc.yaml, and computes stage keys, which identify the inputs of a stage."""

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import file_hash, read_yaml, tree_hash
from pipeline.runtime.project import of_project

DVC_FILE = Path("dvc.yaml")
PARAMS_FILE = Path("params.yaml")
HERE = Path()  # the project's root folder, which is the working directory of stages

# Params that name a file; a stage also depends on the file's content.
FILE_PARAMS = (
    "classifier.pretrained",
    "tokenizer.pretrained",
    "transformer.pretrained",
    "evaluation.inception_weights",
    "evaluation.vgg_weights",
    "evaluation.reference_statistics",
)

# Params that split a training batch, and so change the order of sums and the dropout masks.
WHO = (
    *("ray.num_workers", "ray.cpus_per_worker", "training.accumulate"),
    *("sweep.workers_per_trial", "cas.workers_per_classifier"),
)


def stage_key(stage: str, ignore: Iterable[str] = ()) -> dict[str, Any]:
    """The key of a stage: the values of its params, and the hashes of its dependencies and of the
    files that its params name. The key leaves out the params, sections of params, dependencies and
    folders in `ignore`. (For example, the key of a sweep trial leaves out the sweep's grid.)"""
    params = stage_params(stage)
    files = {name: of_project(params[name]) for name in FILE_PARAMS if params.get(name)}
    key = {
        "params": params,
        "deps": {dep: _hash(dep) for dep in stage_deps(stage) if not _is_in(dep, ignore)},
        # A missing file is left out: the code that loads the file reports the error.
        "files": {name: _hash(file) for name, file in files.items() if os.path.exists(file)},
    }
    return part_of_key(key, ignore)


def part_of_key(key: Mapping[str, Any], ignore: Iterable[str]) -> dict[str, Any]:
    """Return a copy of `key` (from `stage_key`) without the params and dependencies in `ignore`."""
    return {
        kind: {name: value for name, value in known.items() if not _is_in(name, ignore)}
        for kind, known in key.items()
    }


def _is_in(name: str, listed: Iterable[str]) -> bool:
    return any(name == entry or name.startswith((f"{entry}.", f"{entry}/")) for entry in listed)


def project_key() -> dict[str, Any]:
    """The key of the whole DAG: the values of all params, and the hashes of all stages' code."""
    code = {dep for stage in read_stages() for dep in stage_deps(stage)} - makers().keys()
    return {
        "params": flatten(read_yaml(PARAMS_FILE)),
        "deps": {dep: _hash(dep) for dep in sorted(code) if Path(dep).exists()},
    }


def _hash(path: Path | str) -> str:
    """The hash of a file or folder. A file is read again only if its size or time has changed."""

    def known_hash(file: Path) -> str:
        state = file.stat()
        return _file_hash(file.absolute(), state.st_size, state.st_mtime_ns)

    return tree_hash(path, known_hash)


@lru_cache(maxsize=10_000)
def _file_hash(path: Path, size: int, modified: int) -> str:
    return file_hash(path)


def require_unchanged(deps: Iterable[tuple[str, str]], stage: str) -> None:
    """Raise a `UserError` if a dependency changed while a stage ran: DVC would record that the new
    content gave the results. `deps` has pairs (path, hash at the stage's start)."""
    for path, known in deps:
        if not os.path.exists(path) or _hash(path) != known:
            reason = f"changed while {stage} ran, so the results may mix old and new content"
            raise UserError(path, reason, f"run {stage} again")


def require_params(params: Mapping[str, Any], stage: str) -> None:
    """Raise a `UserError` if a param of the stage changed in params.yaml while the stage ran."""
    for key, (was, now) in differences(params, stage_params(stage)).items():
        reason = f"set to {str(now)[:80]} in {PARAMS_FILE} while {stage} ran with {str(was)[:80]}"
        raise UserError(key, reason, f"run {stage} again")


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The params that differ, each with its old and new value; a missing param counts as None."""
    keys = sorted(was.keys() | now.keys())
    return {k: (was.get(k), now.get(k)) for k in keys if was.get(k) != now.get(k)}


def read_stages(root: Path = HERE) -> dict[str, dict[str, Any]]:
    """The stages by name, in the order of dvc.yaml: a stage comes after those it depends on."""
    return read_yaml(root / DVC_FILE).get("stages", {})


def stage_params(stage: str, root: Path = HERE) -> dict[str, Any]:
    """The values of the params that dvc.yaml lists for a stage, by dotted key."""
    listed = read_stages(root)[stage].get("params", [])
    values = flatten(read_yaml(root / PARAMS_FILE))
    return {name: value for name, value in values.items() if _is_in(name, listed)}


def stage_deps(stage: str, root: Path = HERE) -> list[str]:
    """The dependencies that dvc.yaml lists for a stage; a param's value replaces `${param}`."""
    values = flatten(read_yaml(root / PARAMS_FILE))
    listed = read_stages(root)[stage].get("deps", [])
    return [re.sub(r"\$\{([\w.]+)\}", lambda m: str(values.get(m[1])), dep) for dep in listed]


def stage_outputs(stage: str, root: Path = HERE) -> list[Path]:
    """The files and folders that dvc.yaml lists as outputs of a stage, relative to the root."""
    listed = read_stages(root)[stage]
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in listed.get(kind) or []]
    return [Path(next(iter(e)) if isinstance(e, dict) else e) for e in entries]


def makers(root: Path = HERE) -> dict[str, str]:
    """Return a dict from each dependency that some stage outputs to the name of this stage."""
    stages = read_stages(root)
    outputs = {output: stage for stage in stages for output in stage_outputs(stage, root)}
    return {
        dep: outputs[place]
        for stage in stages
        for dep in stage_deps(stage, root)
        for place in (Path(dep), *Path(dep).parents)
        if place in outputs
    }


def stages_up_to(stage: str | None) -> list[str]:
    """A stage and the stages that it depends on, in the order of dvc.yaml; all stages if `stage` is
    None. Raises a `UserError` if dvc.yaml has no such stage."""
    order, made_by = list(read_stages()), makers()
    if stage not in (None, *order):
        way_out = f"its stages are {', '.join(order)}"
        raise UserError(str(DVC_FILE), f"has no stage '{stage}'", way_out)
    needed = {stage} if stage else set(order)
    for name in reversed(order):
        if name in needed:
            needed |= {made_by[dep] for dep in stage_deps(name) if dep in made_by}
    return [name for name in order if name in needed]


def stages_from(stage: str) -> set[str]:
    """The given stage and all stages that depend on it."""
    made_by, found = makers(), {stage}
    for name in read_stages():
        if any(made_by.get(dep) in found for dep in stage_deps(name)):
            found.add(name)
    return found


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one level with dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= flatten(item, f"{prefix}.{name}" if prefix else name)
    return flat
