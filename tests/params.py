"""Parameters to test with."""

import functools
from typing import Any

from pipeline.config.params import Params
from pipeline.runtime.files import read_yaml
from tests.project import ROOT

PRESET = ROOT / "presets/mnist5k.yaml"  # the default


@functools.cache
def _preset() -> dict[str, Any]:
    return read_yaml(PRESET)


def make_params(**changes: Any) -> Params:
    """The default preset's, with changes given as section={key: value}, or key=value at the top."""
    values = dict(_preset())
    for name, change in changes.items():
        values[name] = values[name] | change if isinstance(change, dict) else change
    return Params(**values)
