"""Params for tests."""

import json
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from tests.project import ROOT

PRESET = ROOT / "params.yaml"  # the default


def make_params(**changes: Any) -> Params:
    """Return the default params with changes: section={key: value}, or key=value at top level."""
    return Params(**changed(changes))


def write_params(folder: Path, **changes: Any) -> Path:
    """Write a params file, valid or not; changes as in `make_params`."""
    path = folder / "params.yaml"
    path.write_text(json.dumps(changed(changes)))
    return path


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    values = Params().model_dump()
    for name, change in changes.items():
        values[name] = values[name] | change if isinstance(change, dict) else change
    return values
