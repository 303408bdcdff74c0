"""Every preset validates; comments and layout survive it, and `dvc exp run -S` after it."""

import difflib
import re
import subprocess
from pathlib import Path

import pytest

from pipeline.config import presets
from pipeline.config.params import load_params
from pipeline.config.presets import BASE, apply_preset, preset_names
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_yaml
from tests.damage import no_file
from tests.errors import one_line
from tests.project import ROOT


def comments(text: str) -> list[str]:
    """In their order, without the header, which is each preset's own."""
    return re.findall(r"#.*", text.split("\n\n", 1)[1])


def committed(name: str) -> str:
    """A file of the last commit: the working copy of params.yaml is the user's to change."""
    try:
        shown = subprocess.run(
            ("git", "show", f"HEAD:./{name}"), cwd=ROOT, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no git history to read {name} from: {error}")
    return shown.stdout.decode()


def overridden(path: Path, *changes: str) -> list[str]:
    """Change params by the code behind `dvc exp run -S`; the lines that went and that came."""
    from dvc.utils.hydra import apply_overrides

    before = path.read_text().splitlines()
    apply_overrides(path, list(changes))
    lines = list(difflib.unified_diff(before, path.read_text().splitlines(), lineterm="", n=0))
    return [line for line in lines[2:] if not line.startswith("@@")]


@pytest.mark.parametrize("name", preset_names())
def test_preset_validates_and_keeps_every_comment(name, tmp_path):
    target = tmp_path / "params.yaml"
    params = apply_preset(name, target)
    assert params.preset == name and load_params(target) == params
    text = target.read_text()
    assert text.splitlines()[0].startswith(f"# Preset {name}")
    assert comments(text) == comments(BASE.read_text())


def test_the_default_preset_is_written_as_it_stands(tmp_path):
    apply_preset("mnist5k", tmp_path / "params.yaml")
    assert (tmp_path / "params.yaml").read_text() == BASE.read_text()


def test_repository_ships_the_default_preset():
    assert committed("params.yaml") == committed("presets/mnist5k.yaml")


@pytest.mark.parametrize("name", preset_names())
def test_dvc_changes_the_line_that_it_is_told_to_and_no_other(name, tmp_path):
    target = tmp_path / "params.yaml"
    steps = apply_preset(name, target).training.warmup_steps
    assert overridden(target, "training.warmup_steps=7") == [
        f"-  warmup_steps: {steps}",
        "+  warmup_steps: 7",
    ]
    assert overridden(target, "training.warmup_steps=8") == [
        "-  warmup_steps: 7",
        "+  warmup_steps: 8",
    ]


def test_dvc_keeps_every_comment_when_it_changes_lists(tmp_path):
    target = tmp_path / "params.yaml"
    apply_preset("mnist5k", target)
    lists = [
        f"{section}.{key}"
        for section, values in read_yaml(target).items()
        if isinstance(values, dict)
        for key, value in values.items()
        if isinstance(value, list)
    ]
    assert len(lists) > 10
    for dotted in lists:  # one after the other, as a user tries values
        assert set(overridden(target, f"{dotted}=[0.125]")) > {"+  - 0.125"}
    assert comments(target.read_text()) == comments(BASE.read_text())


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
    with pytest.raises(UserError, match=rf"^{broken}/broken\.yaml: training\.batch_size"):
        apply_preset("broken", target)
    assert target.read_text() == "untouched"


@pytest.mark.parametrize(
    "values", ["seed: {a: 1}", "data: {flip: {x: 1}}", "tokenizer: {multipliers: {1: 5}}"]
)
def test_a_mapping_in_the_place_of_a_value_is_named(tmp_path, monkeypatch, values):
    monkeypatch.setattr(presets, "PRESETS", tmp_path)
    (tmp_path / "own.yaml").write_text(values)
    with pytest.raises(UserError, match=rf"^{tmp_path}/own\.yaml: (seed|data\.flip|tokenizer)"):
        apply_preset("own", tmp_path / "params.yaml")


def test_a_preset_that_is_a_broken_link_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "PRESETS", tmp_path)
    (tmp_path / "own.yaml").symlink_to("nowhere")
    assert preset_names() == []


@pytest.mark.parametrize("how", ["folder", "fifo", "comment", "nothing"])
def test_a_preset_that_is_no_file_of_values_hangs_nobody(tmp_path, monkeypatch, how):
    monkeypatch.setattr(presets, "PRESETS", tmp_path)
    path = tmp_path / "own.yaml"
    if how in ("folder", "fifo"):
        no_file(how, path)
        with pytest.raises(UserError, match=r"own\.yaml: a ") as error:
            presets.preset_summary("own")
        one_line(error)
    else:
        path.write_text("# Preset own: mine. Cost: little." if how == "comment" else "")
        said = "mine" if how == "comment" else "not said"
        assert presets.preset_summary("own").what == said
