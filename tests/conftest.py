"""Fixtures that several test files share."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.params import Params, read_yaml

ROOT = Path(__file__).parents[1]

torch.set_num_threads(1)  # the tensors of tests are small: threads would only wait for each other


@pytest.fixture
def make_params() -> Callable[..., Params]:
    """The default preset's parameters, with changes given as section={key: value}."""

    def make(**sections) -> Params:
        values = read_yaml(ROOT / "presets" / "mnist5k.yaml")
        for name, changes in sections.items():
            if isinstance(changes, dict):
                values[name] |= changes
            else:
                values[name] = changes
        return Params(**values)

    return make
