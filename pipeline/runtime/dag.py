"""The params and dependencies that dvc.yaml lists for a stage: their values and contents."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.runtime.files import read_yaml, tree_hash

DVC_FILE = Path("dvc.yaml")
PARAMS_FILE = Path("params.yaml")

# Params that name a file, whose content matters and not only its name.
FILE_PARAMS = (
    "tokenizer.pretrained",
    "transformer.pretrained",
    "evaluation.inception_weights",
    "evaluation.vgg_weights",
    "evaluation.reference_statistics",
)


def stage_key(stage: str, ignore: Iterable[str] = ()) -> dict[str, Any]:
    """Everything that a stage depends on: its params by value, its dependencies by content, and the
    content of the files that its params name.

    Args:
        ignore: params and dependencies, or sections and folders of them, to leave out (one trial of
            the sweep does not depend on the sweep's grid).
    """
    dropped = tuple(ignore)

    def matters(name: str) -> bool:
        return not any(name == d or name.startswith((f"{d}.", f"{d}/")) for d in dropped)

    params = {k: v for k, v in stage_params(stage).items() if matters(k)}
    named = [params[name] for name in FILE_PARAMS if params.get(name)]
    return {
        "params": params,
        "deps": {dep: tree_hash(dep) for dep in stage_deps(stage) if matters(dep)},
        # A file that is missing is left out: the code that loads it reports that.
        "files": {path: tree_hash(path) for path in named if Path(path).exists()},
    }


def stage_params(stage: str) -> dict[str, Any]:
    """The params that dvc.yaml lists for a stage, by dotted key."""
    declared = read_yaml(DVC_FILE)["stages"][stage].get("params", [])
    values = read_yaml(PARAMS_FILE)
    return flatten({name: _look_up(values, name) for name in declared})


def stage_deps(stage: str) -> list[str]:
    """The files and folders that dvc.yaml lists for a stage; `${key}` is that param's value."""
    values = read_yaml(PARAMS_FILE)
    return [
        re.sub(r"\$\{([\w.]+)\}", lambda match: str(_look_up(values, match[1])), dep)
        for dep in read_yaml(DVC_FILE)["stages"][stage].get("deps", [])
    ]


def _look_up(values: dict, dotted: str) -> Any:
    for part in dotted.split("."):
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
