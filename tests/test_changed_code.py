"""If code, params or inputs change while a stage runs, its results do not count as made by the new
versions."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.runtime.errors import UserError
from pipeline.runtime.stage import Stage
from stages.running import run_stage
from tests.params import write_params


@pytest.fixture
def stage(make_params, tmp_path, monkeypatch, fresh_database) -> Stage:
    monkeypatch.chdir(tmp_path)
    shutil.copy(fresh_database, "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    write_params(tmp_path)
    for name in ("science", "data/images", "others"):
        Path(name).mkdir(parents=True)
        Path(name, "a.py").write_text("lr = 1")
    stages = {
        "prepare": {"deps": ["others"], "outs": ["data/images"]},
        "edit": {
            "params": ["editing", "seed"],
            "deps": ["science", "data/images"],
            "outs": ["results/rows.csv"],
        },
    }
    Path("dvc.yaml").write_text(json.dumps({"stages": stages}))
    return Stage("edit", make_params())


@pytest.mark.parametrize("changed", ["science", "data/images"])
def test_a_stage_whose_code_or_input_changed_meanwhile_fails_and_leaves_no_record(stage, changed):
    said = f"^{changed}: changed while edit ran, so the results .* content; run edit again$"
    with pytest.raises(UserError, match=said), stage:
        Path(changed, "a.py").write_text("lr = 2")
    assert not Path("results/sources/edit.json").exists()


def test_params_that_are_edited_meanwhile_do_not_pass_for_those_it_ran_with(stage, make_params):
    said = r"^editing.feather: set to 7 in params.yaml while edit ran with \d+; run edit again$"
    with pytest.raises(UserError, match=said), stage:
        write_params(Path(), editing={"feather": 7})
    assert not Path("results/sources/edit.json").exists()
    write_params(Path())
    with Stage("edit", make_params()):
        write_params(Path(), cas={"steps": 7})  # those of other stages may change


def test_params_that_change_before_the_stage_looks_are_told_too(stage, monkeypatch, capsys):
    def main(params) -> str:
        write_params(Path(), editing={"feather": 7})
        with Stage("edit", params):
            return "made of the old ones"

    monkeypatch.setitem(sys.modules, "stages.edit", SimpleNamespace(main=main))
    with pytest.raises(SystemExit, match=r"^error: editing.feather: set to 7 in params.yaml while"):
        run_stage("edit")
    assert "made of" not in capsys.readouterr().out


def test_a_run_directory_that_is_asked_for_later_has_the_name_of_the_params_before(
    stage, make_params
):
    before = stage.folder("editing.images")
    write_params(Path(), editing={"feather": 7})
    assert stage.folder("editing.images", "cas") == before
    assert Stage("edit", make_params()).folder("editing.images") != before
    write_params(Path())
    assert Stage("edit", make_params()).folder("editing.images") == before


@pytest.mark.parametrize("changed", ["others/a.py", "science/__pycache__/a.pyc"])
def test_of_other_code_and_of_what_is_no_code_any_may_change(stage, changed):
    with stage:
        Path(changed).parent.mkdir(exist_ok=True)
        Path(changed).write_text("lr = 2")
        Path("science/a.py").write_text("lr = 1")  # the same, at another time
    assert Path("results/sources/edit.json").exists()


def test_an_error_of_the_stage_comes_first(stage):
    with pytest.raises(TypeError), stage:
        Path("science/a.py").write_text("lr = 2")
        len(3)
