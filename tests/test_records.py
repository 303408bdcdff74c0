"""Results of different params, or of other runs of the stages before, are told apart."""

import json
import platform
from pathlib import Path

import pytest
import torch

from pipeline.runtime.dag import stage_key
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json
from pipeline.runtime.records import described, out_of_date, require_current, write_record

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


def test_records_of_before_there_were_hashes_are_judged_by_their_params(project):
    for path in Path("results/sources").iterdir():
        record = json.loads(path.read_text())
        path.write_text(
            json.dumps({k: v for k, v in record.items() if k not in ("deps", "outputs")})
        )
    assert out_of_date() == {}
    set_params(samples=4)
    assert list(out_of_date()) == ["evaluate"]


def test_results_alone_are_not_judged(project):
    Path("dvc.yaml").unlink()
    assert out_of_date() == {}


def test_a_damaged_record_is_named(project):
    Path("results/sources/train.json").write_text("[]")
    with pytest.raises(UserError, match=r"train\.json is damaged"):
        out_of_date()
