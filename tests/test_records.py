"""Results of different params, or of other runs of the stages before, are told apart."""

import json
import os
import platform
import shutil
from pathlib import Path

import pytest
import torch

from pipeline.runtime.checksums import note_hash
from pipeline.runtime.dag import stage_key
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import SUMS, read_json
from pipeline.runtime.records import (
    described,
    out_of_date,
    read_records,
    require_current,
    write_record,
)
from pipeline.runtime.result_files import Damaged
from tests.errors import one_line

STAGES = {
    "prepare": {"params": ["size"], "deps": ["code.py"], "outs": ["data/images"]},
    "train": {"params": ["steps"], "deps": ["data/images"], "outs": ["models"]},
    "speed": {"params": ["size"], "deps": ["code.py"], "outs": ["results/speed.csv"]},
    "evaluate": {"params": ["samples"], "deps": ["models/main"], "outs": ["results/rows.csv"]},
    "analysis": {"params": ["size"], "deps": ["results/rows.csv", "results/speed.csv"]},
}
MAKES = {"prepare": "data/images/a", "train": "models/main/x", "speed": "results/speed.csv"}
MAKES["evaluate"] = "results/rows.csv"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in which every stage has run."""
    monkeypatch.chdir(tmp_path)
    for name, stage in STAGES.items():
        if name != "analysis":
            stage["outs"] = [*stage["outs"][:1], f"results/sources/{name}.json"]
    Path("dvc.yaml").write_text(json.dumps({"stages": STAGES}))
    Path("code.py").write_text("1")
    set_params()
    for stage in MAKES:
        run(stage)
    return tmp_path


def set_params(**changes) -> None:
    Path("params.yaml").write_text(json.dumps({"size": 28, "steps": 900, "samples": 10} | changes))


def run(stage: str, makes: str = "first") -> None:
    """What a stage does: it reads its key, writes its output, and leaves a record."""
    key, path = stage_key(stage), Path(MAKES[stage])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(makes)
    write_record(stage, f"{stage}-run", key, started=0.0, workers=[{"host": "b"}])


def test_what_was_run_in_one_go_belongs_together(project):
    assert out_of_date() == {}
    require_current(*MAKES)


def test_a_record_names_machine_and_versions_and_knows_no_changes_without_git(project):
    record = read_json("results/sources/train.json")
    assert record["dirty"] is None and record["commit"] == "unknown"
    assert record["host"] == platform.node() and record["workers"] == [{"host": "b"}]
    assert record["versions"]["python"] == platform.python_version()
    assert record["versions"]["torch"] == torch.__version__


def test_a_changed_param_makes_its_stage_and_what_stands_on_it_out_of_date(project):
    set_params(steps=300)
    stale = out_of_date()
    assert list(stale) == ["train", "evaluate"]
    assert described(stale) == (
        "train ran with other params (steps: 900, now 300); evaluate stands on these"
    )
    require_current("prepare", "speed")
    with pytest.raises(UserError, match=r"evaluate are not of params.yaml .* `dvc repro evaluate`"):
        require_current("evaluate")


def test_a_stage_that_ran_alone_leaves_what_is_behind_it_out_of_date(project):
    set_params(steps=300)
    run("train", makes="second")  # as `dvc repro train`
    assert described(out_of_date()) == "evaluate was made from another models/main"
    run("evaluate")
    assert out_of_date() == {}


def test_a_run_that_makes_the_same_again_changes_nothing(project):
    run("prepare")
    assert out_of_date() == {}


def test_a_stage_without_results_is_named(project):
    Path("results/sources/train.json").unlink()  # DVC deletes it before the stage runs, and fails
    assert list(out_of_date()) == ["train", "evaluate"]
    assert described(out_of_date()) == "train left no results; evaluate stands on these"


def test_result_files_of_another_run_are_named(project):
    Path("results/rows.csv").write_text("of another project")
    assert described(out_of_date()) == "results/rows.csv is not what evaluate wrote"


def test_a_result_that_is_none_by_its_size_is_not_read(project):
    with open("results/rows.csv", "w") as file:
        file.truncate(2**40)
    assert described(out_of_date()) == "results/rows.csv is not what evaluate wrote"


def test_models_of_another_run_are_named_though_they_are_not_read(project):
    """By the hashes beside them; who loads them looks at their bytes."""
    folder = Path("models/main")
    note_hash(folder / "x")
    (folder / "x").write_text("damaged")
    assert out_of_date() == {}
    other = "0" * 64
    (folder / SUMS).write_text(f"{other}  x\n")
    assert described(out_of_date()) == (
        "models/main is not what train wrote; evaluate stands on these"
    )
    with pytest.raises(UserError, match="`dvc repro evaluate`"):
        require_current("evaluate")


def test_a_preset_that_was_written_and_not_run_is_told_in_a_line(project):
    set_params(size=16, steps=10, samples=4)
    assert list(out_of_date()) == ["prepare", "train", "speed", "evaluate"]
    assert described(out_of_date()) == (
        "prepare, train, speed, evaluate ran with other params (size: 28, now 16; steps: 900, "
        "now 10; samples: 10, now 4)"
    )


def test_edited_code_is_no_reason(project):
    """`dvc commit` says that results are as good with it."""
    Path("code.py").write_text("2")
    assert out_of_date() == {}


def test_results_alone_are_not_judged(project):
    Path("dvc.yaml").unlink()
    assert out_of_date() == {}


def test_a_record_of_a_stage_that_is_gone_is_passed_over(project):
    Path("results/sources/gone.json").write_text("[]")
    assert out_of_date() == {}


DAMAGES = {
    "a list": [],
    "a number": 7,
    "nothing": {},
    "params null": {"params": None},
    "params a list": {"params": [1]},
    "params empty": {"params": {}},
    "deps null": {"deps": None},
    "deps a list": {"deps": ["code.py"]},
    "deps outside": {"deps": {"models/../../../dev/zero": "x"}},
    "outputs null": {"outputs": None},
    "outputs empty": {"outputs": {}},
    "outputs a list": {"outputs": ["results/rows.csv"]},
    "outputs numbers": {"outputs": {"results/rows.csv": 5}},
    "outputs a folder": {"outputs": {"results/rows.csv": "x", "results": "x"}},
    "outputs outside": {"outputs": {"results/../../../../dev/zero": "x"}},
    "outputs absolute": {"outputs": {"/dev/zero": "x"}},
    "outputs of another stage": {"outputs": {"results/rows.csv": "x", "results/speed.csv": "x"}},
    "run_id a number": {"run_id": 5},
    "commit null": {"commit": None},
    "dirty a word": {"dirty": "maybe"},
    "finished a number": {"finished": 17},
    "finished no time": {"finished": "yesterday"},
    "seconds text": {"seconds": "long"},
    "seconds true": {"seconds": True},
    "seconds negative": {"seconds": -1.0},
    "seconds NaN": {"seconds": float("nan")},
    "memory text": {"memory_gib": "x"},
    "cpus none": {"cpus": 0},
    "gpus null": {"gpus": None},
    "gpus numbers": {"gpus": [1]},
    "host a mapping": {"host": {}},
    "versions a list": {"versions": []},
    "workers a mapping": {"workers": {}},
    "workers numbers": {"workers": [{"host": 1}]},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record_is_named_with_the_way_out(project, damage):
    path = Path("results/sources/evaluate.json")
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | damage if damage and type(damage) is dict else damage))
    with pytest.raises(
        UserError, match=r"sources/evaluate\.json .* `dvc repro evaluate`$"
    ) as error:
        out_of_date()
    one_line(error)


def test_a_record_that_is_no_file_is_named(project):
    path = Path("results/sources/evaluate.json")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"evaluate\.json is a folder, pipe or device"):
        out_of_date()


@pytest.mark.parametrize("what", ["a file", "a link to itself"])
def test_records_whose_folder_is_none_are_not_taken_for_missing(project, what):
    folder = Path("results/sources")
    shutil.rmtree(folder)
    if what == "a file":
        folder.touch()
    else:
        folder.symlink_to("sources")
    with pytest.raises(UserError, match=r"sources cannot be read \(.*\); mend it"):
        out_of_date()


def test_a_record_with_a_key_twice_is_named(project):
    path = Path("results/sources/evaluate.json")
    path.write_text(path.read_text().replace("{", '{"seconds": 1.0,', 1))
    with pytest.raises(UserError, match=r"evaluate\.json .*seconds is in its list twice"):
        out_of_date()


def test_analysis_asks_for_what_it_shows(project):
    assert read_records(needed=["run_id", "seconds"])["evaluate"].seconds > 0
    path = Path("results/sources/evaluate.json")
    path.write_text(json.dumps({k: v for k, v in read_json(path).items() if k != "seconds"}))
    assert out_of_date() == {}
    with pytest.raises(UserError, match=r"evaluate\.json is damaged: it has no seconds"):
        read_records(needed=["run_id", "seconds"])


def test_records_that_may_not_be_read_are_no_missing_ones(project, monkeypatch):
    def denied(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)  # root may read all
    with pytest.raises(UserError, match=r"sources cannot be read \(Permission denied\); mend it"):
        out_of_date()


def test_a_project_is_judged_from_any_folder(project, tmp_path, monkeypatch):
    set_params(steps=1)
    Path("results/rows.csv").write_text("edited")
    here = out_of_date()
    assert here["evaluate"].changed and here["train"].params
    monkeypatch.chdir(tmp_path.parent)
    assert out_of_date(project) == here
    (project / "results/sources/evaluate.json").write_text("{")
    with pytest.raises(UserError, match=r"delete it and run `dvc repro evaluate`$"):
        out_of_date(project)


def test_a_dvc_yaml_of_others_hides_no_damage(project):
    Path("dvc.yaml").write_text("artifacts: {}\n")
    error = Damaged(project / "results/rows.csv", "is damaged")
    assert str(error).endswith("rows.csv is damaged; delete it and run `dvc repro`")
