"""Presets: `presets/NAME.yaml` holds the values in which NAME differs from the default file.

Choosing one edits params.yaml in place, as `dvc exp run -S key=value` would for every key: DVC sees
an ordinary parameter file, the comments stay, and `git diff params.yaml` shows what the preset is.
"""

import itertools
import os
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config.params import Params, load_params
from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_file, read_yaml, write_text
from pipeline.runtime.limits import YAML_BYTES

# The checkout's, or those that an installed package has with it (pyproject.toml).
_PACKAGED = Path(__file__).parents[1] / "_project"
PRESETS = (_PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2]) / "presets"
BASE = PRESETS / "mnist5k.yaml"  # the default: every key, with its comment


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml") if path.exists())


class Summary(NamedTuple):
    """What a preset's own header says of it."""

    name: str
    what: str
    hardware: str
    cost: str


def preset_summary(name: str) -> Summary:
    """The first sentence of the header, and its words on hardware and cost."""
    lines = (line.removeprefix("#").strip() for line in _header(_path(name)).splitlines())
    text = " ".join(lines)

    def said(pattern: str, ends: str = ".") -> str:
        found = re.search(pattern + rf"(.*?)(?:[{ends}] |[.;]?$)", text)
        return found[1] if found else "not said"

    what = said(rf"Preset {name}[^:]*: ", ends=".;:")
    return Summary(name, what, said("Hardware: "), said("Cost: "))


def apply_preset(name: str, target: Path = PARAMS_FILE) -> Params:
    """Write the parameter file of that preset: the default's text with the preset's values.

    Raises:
        UserError: there is no such preset, or it does not validate; `target` is then untouched.
    """
    import io

    from ruamel.yaml import YAML

    path = _path(name)
    # Round trip, so that the comments survive, with the defaults that DVC dumps with too, so that
    # `dvc exp run -S` afterwards changes no line but its own.
    yaml = YAML()
    document = yaml.load(BASE)
    if path != BASE:
        _merge(document, read_yaml(path), where=path)
    document["preset"] = name
    buffer = io.StringIO()
    yaml.dump(document, buffer)
    text = buffer.getvalue().replace(_header(BASE), _header(path), 1)
    with tempfile.TemporaryDirectory() as folder:
        candidate = Path(folder, target.name)
        write_text(candidate, text)
        try:
            params = load_params(candidate)
        except UserError as error:  # what is wrong is the preset's
            raise UserError(str(error).replace(str(candidate), str(path))) from None
    write_text(Path(os.path.realpath(target)), text)  # where it is a link, of what it leads to
    return params


def preset_params(name: str) -> Params:
    """Params of a preset, which leaves params.yaml as it is.

    Raises:
        UserError: there is no such preset.
    """
    with tempfile.TemporaryDirectory() as folder:
        return apply_preset(name, Path(folder) / PARAMS_FILE.name)


def _path(name: str) -> Path:
    if name not in preset_names():
        raise UserError(f"no preset '{name}'; one of {', '.join(preset_names())}")
    return PRESETS / f"{name}.yaml"


def _header(path: Path) -> str:
    """The comment at a preset's top: what it reproduces, and its cost."""
    lines = read_file(path, YAML_BYTES).decode("utf-8", "replace").splitlines(keepends=True)
    return "".join(itertools.takewhile(lambda line: line.startswith("#"), lines))


def _merge(document: Any, values: dict, where: Path, prefix: str = "") -> None:
    for key, value in values.items():
        if key not in document:
            raise UserError(f"{where}: unknown key {prefix}{key}; remove it")
        if isinstance(value, dict) and isinstance(document[key], dict):
            _merge(document[key], value, where, f"{prefix}{key}.")
        elif isinstance(value, list) and isinstance(document[key], list):
            document[key][:] = value  # in place: the layout, one value a line, stays
        else:
            document[key] = value
