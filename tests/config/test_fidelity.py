"""docs/fidelity.md against the presets that it speaks of, and the networks that it counts."""

import re

import pytest
import yaml

from pipeline.config.params import Params
from pipeline.config.presets import preset_params
from pipeline.runtime.dag import flatten
from pipeline.tools.plan import costs
from tests.project import ROOT

TEXT = (ROOT / "docs/fidelity.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["imagenet256", "places512", "release256"])
def test_the_table_says_what_the_presets_hold(name):
    values = flatten(preset_params(name).model_dump())
    said = {key: float_or_yaml(text) for key, text in re.findall(r"`([a-z_.0-9]+): (.+?)`", TEXT)}
    assert len(said) > 15
    assert said == {key: values[key] for key in said}


def float_or_yaml(text: str):
    """A value as params.yaml holds it (to YAML 1.1, 1e-4 is a text)."""
    return float(text) if re.fullmatch(r"\d+e-\d+", text) else yaml.safe_load(text)


def test_vqgans_set_up_is_one_that_the_params_allow():
    values = preset_params("imagenet256").model_dump()
    changes = dict(re.findall(r"-S ([a-z_.0-9]+)=(\S+)", TEXT))
    assert len(changes) == 7
    for key, text in changes.items():
        section, name = key.split(".")
        assert values[section][name] != yaml.safe_load(text), f"{key} is what the preset has"
        values[section][name] = yaml.safe_load(text)
    Params(**values)


def test_the_discriminator_has_the_parameters_that_are_told():
    parameters = costs(preset_params("imagenet256"), classes=1000).parameters["discriminator"]
    assert f"{parameters / 1e6:.1f}M parameters" in TEXT
