"""What a stage depends on, and the run directories that are keyed by it."""

import json

import pytest

from pipeline.runtime.dag import flatten, stage_deps, stage_key
from pipeline.runtime.files import read_yaml
from pipeline.runtime.runs import run_dir
from tests.project import ROOT

DVC = """
stages:
  train:
    cmd: python train.py
    deps: [code.py, inputs]
    params: [seed, training, data.size]
  evaluate:
    cmd: python evaluate.py
    deps: [code.py, "curves/${training.schedule}.csv", "${data.folder}/${data.name}"]
"""
PARAMS = """
seed: 0
training: {lr: 1e-3, steps: 10, schedule: cosine}
data: {size: 8, flip: true, folder: inputs, name: x}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").write_text(DVC)
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "x").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_stage_key_holds_what_dvc_watches(project):
    key = stage_key("train")
    training = {"training.lr": 1e-3, "training.steps": 10, "training.schedule": "cosine"}
    assert key["params"] == training | {"seed": 0, "data.size": 8}
    assert set(key["deps"]) == {"code.py", "inputs"}
    assert "training.steps" not in stage_key("train", ignore=["training.steps"])["params"]
    assert set(stage_key("train", ignore=["training", "dat"])["params"]) == {"seed", "data.size"}


def test_dependencies_are_named_by_params_as_dvc_names_them(project):
    assert stage_deps("train") == ["code.py", "inputs"]
    assert stage_deps("evaluate") == ["code.py", "curves/cosine.csv", "inputs/x"]
    (project / "params.yaml").write_text(PARAMS.replace("cosine", "linear"))
    assert stage_deps("evaluate")[1] == "curves/linear.csv"


def test_the_transformers_training_depends_on_the_curve_of_its_own_schedule_alone(monkeypatch):
    monkeypatch.chdir(ROOT)
    schedule = read_yaml("params.yaml")["training"]["mask_schedule"]
    curves = [dep for dep in stage_deps("train_transformer") if "schedules" in dep]
    assert curves == [f"data/schedules/{schedule}.csv"]


def test_the_key_changes_with_the_content_of_an_interpolated_dependency(project):
    (project / "curves").mkdir()
    keys = []
    for name, content in (("cosine", "1"), ("cosine", "2"), ("linear", "3")):
        (project / f"curves/{name}.csv").write_text(content)
        keys.append(stage_key("evaluate"))
    assert keys[0] != keys[1] and keys[1] == keys[2]  # the curve of another schedule is no matter


def test_stage_key_holds_the_content_of_files_that_params_name(project):
    (project / "dvc.yaml").write_text(DVC.replace("data.size", "evaluation"))
    text = PARAMS + "evaluation: {vgg_weights: null, reference_statistics: reference.npz}"
    (project / "params.yaml").write_text(text)
    keys = [stage_key("train")]
    for content in ("one", "two"):
        (project / "reference.npz").write_text(content)
        keys.append(stage_key("train"))
    assert keys[0] != keys[1] != keys[2]
    ignored = [stage_key("train", ignore=["evaluation"])]
    (project / "reference.npz").unlink()
    assert ignored == [stage_key("train", ignore=["evaluation"])]


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("params.yaml", "lr: 1e-3", "lr: 0.001", True),
        ("params.yaml", "flip: true", "flip: false", True),
        ("params.yaml", "lr: 1e-3", "lr: 2e-3", False),
        ("params.yaml", "seed: 0", "seed: 1", False),
        ("code.py", "1", "2", False),
        ("inputs/x", "x", "y", False),
    ],
)
def test_run_dir_changes_with_what_the_run_depends_on(project, file, old, new, same):
    before = run_dir("train", stage_key("train"))
    assert before.is_absolute() and json.loads((before / "key.json").read_text())
    path = project / file
    path.write_text(path.read_text().replace(old, new))
    assert (run_dir("train", stage_key("train")) == before) == same


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {
        "a.b": 1,
        "a.c.d": [2],
        "e": None,
    }
