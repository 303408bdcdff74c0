"""Every preset validates; the repository ships with the default one in params.yaml."""

import pytest

from pipeline.config.params import load_params
from pipeline.config.presets import PRESETS, apply_preset, preset_names
from pipeline.runtime.errors import UserError
from tests.project import ROOT


@pytest.mark.parametrize("name", preset_names())
def test_preset_validates_and_keeps_every_comment(name, tmp_path):
    target = tmp_path / "params.yaml"
    params = apply_preset(name, target)
    assert params.preset == name and load_params(target) == params
    text = target.read_text()
    assert text.splitlines()[0].startswith(f"# Preset {name}")
    comments = [
        line for line in (PRESETS / "mnist5k.yaml").read_text().splitlines() if "  #" in line
    ]
    assert all(comment in text for comment in comments)


def test_repository_ships_the_default_preset(tmp_path):
    apply_preset("mnist5k", tmp_path / "params.yaml")
    assert (tmp_path / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()


def test_unknown_preset_lists_those_there_are(tmp_path):
    with pytest.raises(UserError, match=r"no preset 'imagenet'; one of .*smoke"):
        apply_preset("imagenet", tmp_path / "params.yaml")
    assert not (tmp_path / "params.yaml").exists()


def test_impossible_preset_leaves_the_params_as_they_are(tmp_path, monkeypatch):
    broken = tmp_path / "presets"
    broken.mkdir()
    (broken / "broken.yaml").write_text("# Preset broken\n\ntraining:\n  batch_size: 0\n")
    monkeypatch.setattr("pipeline.config.presets.PRESETS", broken)
    target = tmp_path / "params.yaml"
    target.write_text("untouched")
    with pytest.raises(UserError, match=r"training\.batch_size"):
        apply_preset("broken", target)
    assert target.read_text() == "untouched"
