"""Reads and applies presets. A file `presets/NAME.yaml` has a description (see `Summary`) and some
params. Omitted params have the values of the preset that the key `base` names, or defaults."""

import io
import os
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config.params import Params, validated
from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_yaml, write_text

# The presets of the installed package (see pyproject.toml), or of the checkout.
_PACKAGED = Path(__file__).parents[1] / "_project"
PRESETS = (_PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2]) / "presets"


class Summary(NamedTuple):
    name: str
    what: str = ""
    hardware: str = ""
    cost: str = ""
    expected: str = ""  # expected metrics
    measured: str = ""  # runs of the preset that this project has made; "never" if none


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset_summary(name: str) -> Summary:
    values = _read(name)
    return Summary(name, **{key: values[key] for key in Summary._fields if key in values})


def preset_params(name: str) -> Params:
    """The params of a preset. Raises a `UserError` if no preset has this name, or if the preset's
    values are not valid."""
    values = {key: v for key, v in _read(name).items() if key not in Summary._fields}
    return validated(values | {"preset": name}, PRESETS / f"{name}.yaml")


def apply_preset(name: str, target: Path = PARAMS_FILE) -> Params:
    """Write a preset's values into the params file `target`, and keep the file's comments. Replaces
    a missing or invalid file. Returns the params. If `preset_params` raises, nothing is written."""
    from ruamel.yaml import YAML

    params, yaml = preset_params(name), YAML()
    yaml.width = 100  # so that lists are not broken over lines
    try:
        read_yaml(target)
        document = yaml.load(target)
    except UserError:
        document = {}
    _update(document, params.model_dump())
    text = io.StringIO()
    yaml.dump(document, text)
    write_text(os.path.realpath(target), text.getvalue())
    return params


def _read(name: str) -> dict[str, Any]:
    """Read a preset's file, and fill in omitted params of its sections from its `base` preset."""
    if name not in preset_names():
        raise UserError(name, "not a preset's name", f"use one of {', '.join(preset_names())}")
    values = read_yaml(PRESETS / f"{name}.yaml")
    base = _read(values.pop("base")) if "base" in values else {}
    sections = {key: value for key, value in base.items() if isinstance(value, dict)}
    return values | {key: value | values.get(key, {}) for key, value in sections.items()}


def _update(document: Any, values: dict[str, Any]) -> None:
    """Replace the values of a ruamel.yaml document in place, so that its comments stay."""
    for key in [key for key in document if key not in values]:
        del document[key]
    for key, value in values.items():
        old = document.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            _update(old, value)
        elif isinstance(value, list) and isinstance(old, list) and old != value:
            old[:] = value  # keeps the list's layout
        elif key not in document or old != value:
            document[key] = value
