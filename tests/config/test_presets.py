"""Every preset validates; comments and layout of params.yaml survive it."""

import re
import shutil

import pytest

from pipeline.config import presets
from pipeline.config.params import Params, load_params
from pipeline.config.presets import apply_preset, preset_names, preset_params, preset_summary
from pipeline.runtime.errors import UserError
from tests.params import PRESET


def comments(text: str) -> list[str]:
    return re.findall(r"#.*", text)


@pytest.fixture
def target(tmp_path):
    """A copy of params.yaml."""
    return shutil.copy(PRESET, tmp_path / "params.yaml")


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_validates_says_what_it_is_and_keeps_every_comment(name, target):
    params = apply_preset(name, target)
    assert params.preset == name and load_params(target) == params
    assert comments(target.read_text()) == comments(PRESET.read_text())
    summary = preset_summary(name)
    assert all(summary), "every text is given"
    assert summary.measured != "never" or summary.expected.startswith("aims at")


def test_the_default_preset_brings_the_defaults_back(target):
    apply_preset("cifar10", target)
    assert apply_preset("mnist5k", target) == Params()
    lines = PRESET.read_text().splitlines()
    same = [old == new for old, new in zip(lines, target.read_text().splitlines(), strict=True)]
    assert sum(same) > 0.9 * len(lines)  # floats may be written in another way


@pytest.mark.parametrize("name", ["mnist5k", "imagenet256"])
def test_dvc_keeps_comments_and_other_values(name, target):
    """The code behind `dvc exp run -S`."""
    from dvc.utils.hydra import apply_overrides

    params = apply_preset(name, target)
    apply_overrides(target, ["training.warmup_steps=7", "sweep.iterations=[3,5]"])
    values = params.model_dump()
    values["training"]["warmup_steps"], values["sweep"]["iterations"] = 7, [3, 5]
    assert load_params(target) == Params(**values)
    assert comments(target.read_text()) == comments(PRESET.read_text())


@pytest.mark.parametrize("text", ["", "a: [", "surprise: 1\ntraining: {steps: x}\n", None])
def test_a_damaged_or_missing_file_is_written_anew(text, tmp_path):
    target = tmp_path / "params.yaml"
    if text is not None:
        target.write_text(text)
    assert apply_preset("smoke", target) == load_params(target) == preset_params("smoke")


def test_an_unknown_preset_lists_those_there_are(tmp_path):
    for name in ("imagenet", "", "../params", "smoke.yaml"):
        with pytest.raises(UserError, match="smoke"):
            apply_preset(name, tmp_path / "params.yaml")
    assert not (tmp_path / "params.yaml").exists()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("training: {batch_size: 0}", "training.batch_size"),
        ("data: {flip: {x: 1}}", "data.flip"),
        ("base: smoke\nwhat: x\nsurprise: 1", "surprise"),
        ("ray: {num_workers: 7}", "ray.num_workers"),
    ],
)
def test_an_impossible_preset_leaves_the_params_as_they_are(text, key, target, monkeypatch):
    folder = target.parent / "presets"
    shutil.copytree(presets.PRESETS, folder)
    (folder / "own.yaml").write_text(text)
    monkeypatch.setattr(presets, "PRESETS", folder)
    with pytest.raises(UserError) as error:
        apply_preset("own", target)
    assert error.value.subject == f"{folder}/own.yaml: {key}"
    assert target.read_text() == PRESET.read_text()
