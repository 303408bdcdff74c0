"""The stages in dvc.yaml, their keys, and the run directories of these keys."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime.dag import (
    flatten,
    makers,
    part_of_key,
    project_key,
    stage_deps,
    stage_key,
    stage_outputs,
    stage_params,
    stages_from,
    stages_up_to,
)
from pipeline.runtime.runs import run_dir
from tests.errors import refused
from tests.project import ROOT

DVC = """
stages:
  train:
    cmd: python train.py
    desc: A network
    deps: [code.py, inputs]
    params: [seed, training, data.size]
    outs: [models]
  evaluate:
    cmd: python evaluate.py
    deps: [code.py, models/main, "curves/${training.schedule}.csv", "${data.folder}/${data.name}"]
    metrics: [results/rows.csv: {cache: false}]
  other:
    deps: [code.py]
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
    for ignored in (["training.steps"], ["training", "dat"], ["inputs"]):
        assert stage_key("train", ignored) == part_of_key(key, ignored)
    assert set(stage_key("train", ["training", "dat"])["params"]) == {"seed", "data.size"}
    assert set(project_key()["deps"]) == {"code.py", "inputs", "inputs/x"}  # not made by a stage


def test_the_lists_of_a_stage(project):
    assert stage_deps("train") == ["code.py", "inputs"]
    assert stage_deps("evaluate")[2:] == ["curves/cosine.csv", "inputs/x"]
    assert stage_params("evaluate") == {}
    assert stage_outputs("evaluate") == [Path("results/rows.csv")] and stage_outputs("other") == []
    assert makers() == {"models/main": "train"}
    assert stages_up_to("evaluate") == ["train", "evaluate"] and stages_up_to("other") == ["other"]
    assert stages_up_to(None) == ["train", "evaluate", "other"]
    assert stages_from("train") == {"train", "evaluate"}
    (project / "params.yaml").write_text(PARAMS.replace("cosine", "linear"))
    assert stage_deps("evaluate")[2] == "curves/linear.csv"


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("params.yaml", "lr: 1e-3", "lr: 0.001", True),
        ("params.yaml", "flip: true", "flip: false", True),
        ("params.yaml", "lr: 1e-3", "lr: 2e-3", False),
        ("params.yaml", "seed: 0", "seed: 1", False),
        ("code.py", "1", "22", False),
        ("inputs/x", "x", "yy", False),
    ],
)
def test_run_dir_changes_with_what_the_run_depends_on(project, file, old, new, same):
    before = run_dir("train", stage_key("train"))
    assert before.is_absolute() and (before / "key.json").exists()
    path = project / file
    path.write_text(path.read_text().replace(old, new))
    assert (run_dir("train", stage_key("train")) == before) == same


def test_a_stage_that_dvc_yaml_lacks_is_one_line(project):
    with refused("dvc.yaml", way_out="evaluate"):
        stages_up_to("nope")
    nested = {"a": {"b": 1, "c": {"d": [2]}}, "e": None}
    assert flatten(nested) == {"a.b": 1, "a.c.d": [2], "e": None}


HOLD = """
import sys
from pipeline.runtime.runs import run_dir
print(run_dir("evaluate", {"seed": 0}, sys.argv[1]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the run directory of seed 0."""
    process = subprocess.Popen(
        (sys.executable, "-c", HOLD, str(tmp_path)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
    )
    process.folder = Path(process.stdout.readline().strip())
    yield process
    process.kill()
    process.communicate()


def test_one_process_holds_it_until_it_is_killed(other, tmp_path):
    with refused("evaluate", f"process {other.pid} on"):
        run_dir("evaluate", {"seed": 0}, str(tmp_path))
    assert run_dir("evaluate", {"seed": 1}, str(tmp_path)) != other.folder
    half = [at / ".checkpoint.pt.0123abcd.tmp" for at in (other.folder, other.folder / "deep")]
    for file in half:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"half")
    other.send_signal(signal.SIGKILL)
    other.communicate()
    folder = run_dir("evaluate", {"seed": 0}, str(tmp_path))
    assert folder == other.folder == run_dir("evaluate", {"seed": 0}, str(tmp_path))
    assert str(os.getpid()) in (folder / ".owner").read_text()
    assert not any(file.exists() for file in half)
