"""Out-of-date results, detected from a dvc.lock that DVC itself wrote; and records of runs."""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json, read_yaml
from pipeline.runtime.provenance import (
    described,
    dvc_hash,
    has_inputs,
    out_of_date,
    require_current,
    write_record,
)
from tests.errors import refused
from tests.project import ROOT

DVC = str(Path(sys.executable).parent / "dvc")
PARAMS = {"side": 28, "train": {"steps": 900, "lr": 1e-4}, "samples": 10}


def stage(name: str, made: str, **listed: list[str]) -> dict:
    """Return a stage that copies its param to the file `made`, and writes an empty record."""
    record, folder = f"results/sources/{name}.json", Path(made).parent
    value = {"side": "side", "train": "steps", "samples": "samples"}[listed["params"][0]]
    command = f"mkdir -p {folder} results/sources; grep {value} params.yaml > {made}"
    outs = [made if folder.name == "results" else made.partition("/")[0], record]
    return {"cmd": f"{command}; echo '{{}}' > {record}", "outs": outs, **listed}


STAGES = {
    "prepare": stage("prepare", "data/a", params=["side"], deps=["code.py"]),
    "train": stage("train", "models/main/x", params=["train"], deps=["data"]),
    "speed": stage("speed", "results/speed.csv", params=["side"], deps=["code.py"]),
    # This stage reads only a part of `models`, the output of `train`.
    "evaluate": stage("evaluate", "results/rows.csv", params=["samples"], deps=["models/main"]),
    "analysis": {"cmd": "true", "deps": ["results/rows.csv", "results/speed.csv"]},
}


def dvc(*command: str) -> None:
    subprocess.run((DVC, *command), check=True, capture_output=True)


def set_params(**changes) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS | changes, sort_keys=False))


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory) -> Path:
    """A project in which `dvc repro` has run."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("dvc.yaml").write_text(json.dumps({"stages": STAGES}))
        Path("code.py").write_text("1")
        set_params()
        shutil.copy(ROOT / ".dvcignore", ".")
        dvc("init", "--no-scm", "--quiet")
        dvc("repro", "--quiet")
    return folder


@pytest.fixture
def project(reproduced, tmp_path, monkeypatch) -> Path:
    folder = shutil.copytree(reproduced, tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


def test_one_repro_is_current_and_edited_code_is_no_reason(project):
    assert out_of_date() == {}
    require_current("prepare", "train", "speed", "evaluate")
    Path("code.py").write_text("2")  # `dvc commit` may have accepted the edit
    assert out_of_date() == {}


def test_a_changed_param_makes_its_stage_and_those_that_depend_on_it_out_of_date(project):
    set_params(train={"steps": 300, "lr": 0.0001})
    assert described(out_of_date()) == (
        "train ran with other params (train.steps: 900, now 300); "
        "evaluate used older results of train"
    )
    require_current("prepare", "speed")
    with refused(way_out="run `dvc repro evaluate`", match="^[^:]*evaluate"):
        require_current("evaluate")


def test_params_that_came_or_went_are_named_and_a_merge_conflict_is_one_line(project):
    set_params(train={"lr": 1e-4, "warmup": 5})
    reason = out_of_date()["train"]
    assert "train.steps: 900, now None; train.warmup: None, now 5" in reason
    lock = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(f"<<<<<<< HEAD\n{lock}=======\n{lock}>>>>>>> other\n")
    with pytest.raises(UserError, match=r"dvc\.lock"):
        out_of_date()


@pytest.mark.slow
def test_a_stage_that_ran_alone_leaves_those_that_read_it_out_of_date(project):
    set_params(side=16)
    dvc("repro", "prepare")
    assert list(stale := out_of_date()) == ["train", "speed", "evaluate"]
    assert stale["train"] == "read another version of data"
    dvc("repro")
    assert out_of_date() == {}
    set_params(side=16, train={"steps": 300, "lr": 1e-4})
    dvc("repro", "train")
    assert described(out_of_date()) == "evaluate read another version of models/main"


def test_a_stage_that_failed_or_never_ran_left_no_results(project):
    Path("results/sources/train.json").unlink()  # DVC deletes outputs before a stage runs
    assert described(out_of_date()) == "train left no results; evaluate used older results of train"
    lock = read_yaml(Path("dvc.lock"))
    del lock["stages"]["prepare"]
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    assert described(out_of_date()).startswith("prepare, train left no results")


def test_a_project_is_judged_from_any_folder_and_not_before_dvc_ran_there(project, monkeypatch):
    folders = [Path("models/main"), Path("models/other")]
    assert has_inputs("evaluate", folders)
    Path("models/main/x").write_text("of another training")
    assert out_of_date()["evaluate"] == "read another version of models/main"
    assert not has_inputs("evaluate", folders) and not has_inputs("sweep", folders)
    set_params(samples=4)
    monkeypatch.chdir(project.parent)
    assert list(out_of_date(project)) == ["evaluate"]
    (project / "dvc.lock").unlink()
    assert out_of_date(project) == {} and not has_inputs("evaluate", [Path("models")], project)


@pytest.mark.slow
def test_hashes_are_those_of_dvc(project):
    for name in ("é", "a.b", "a/z", "a0", "__pycache__/x.pyc", "x.py~", "é/.DS_Store"):
        path = Path("tree", f"{name}.d", "x") if "/" not in name else Path("tree", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    listed = {"cmd": "echo > out", "deps": ["tree", "code.py"], "outs": ["out"]}
    Path("dvc.yaml").write_text(json.dumps({"stages": {"hash": listed}}))
    dvc("repro")
    for dep in read_yaml(Path("dvc.lock"))["stages"]["hash"]["deps"]:
        assert dvc_hash(Path(dep["path"])) == dep["md5"], dep["path"]


def test_a_record_names_machines_and_versions(project):
    key = {"params": {"steps": 1}, "deps": {}, "files": {}}
    worker = {"host": "b", "device": "cpu"}
    write_record("train", "run", key, started=0.0, workers=[worker])
    record = read_json(Path("results/sources/train.json"))
    assert record["run_id"] == "run" and record["params"] == {"steps": 1}
    assert record["host"] == platform.node() and record["workers"] == [worker]
    assert record["dirty"] is None and record["commit"] == "unknown"  # not a git repository
    assert record["versions"]["torch"] == torch.__version__ and record["seconds"] > 0
