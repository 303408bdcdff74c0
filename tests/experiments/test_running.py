"""How a stage ends: its errors are a line, and its log hides neither its results nor its error."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime import mlflow_sync
from pipeline.runtime.dag import stage_params
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_json, write_text
from pipeline.runtime.run_log import RunLog
from pipeline.runtime.stage import Stage
from stages import running
from tests.project import ROOT


@pytest.fixture
def project(make_params, tmp_path, monkeypatch) -> Path:
    """A project of one stage, `edit`."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(json.dumps(make_params().model_dump()))
    stages = {"edit": {"params": ["seed"], "deps": [], "outs": ["results/rows.csv"]}}
    Path("dvc.yaml").write_text(json.dumps({"stages": stages}))
    monkeypatch.setattr(running, "load_mlflow", lambda: None)
    monkeypatch.setattr(sys, "argv", ["stages/edit.py"])
    return tmp_path


def fails(params) -> str:
    raise UserError("edit", "failed")


@pytest.mark.parametrize(
    ("stage", "lock", "said"),
    [
        ("edit", "stages:\n  edit:\n    cmd: x\n", True),
        ("cas", "stages:\n  edit:\n    cmd: x\n", False),
        ("", "stages:\n  edit:\n    cmd: x\n", False),
        ("edit", "<<<<<<< HEAD\nstages: [\n", False),
    ],
)
def test_an_error_says_how_the_results_that_dvc_deleted_come_back(
    project, monkeypatch, stage, lock, said
):
    write_text("dvc.lock", lock)
    monkeypatch.setenv("DVC_STAGE", stage)
    with pytest.raises(SystemExit) as caught:
        running.run_stage(fails)
    line = str(caught.value)
    assert line.startswith("error: edit: failed") and ("`dvc repro` brings them" in line) == said
    assert "\n" not in line


def test_a_bug_is_a_line_that_names_the_file_of_its_traceback_and_shows_no_password(
    project, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@host")

    def fail(params):
        raise ValueError("http://me:s3cret@host \x1b[2J \udcff")

    with pytest.raises(SystemExit) as caught:
        running.run_stage(fail)
    file, line = project / "runs/traceback-edit.txt", str(caught.value)
    assert line.startswith("error: ValueError: ") and str(file) in line and "\x1b" not in line
    text = file.read_text()
    assert "Traceback" in text and "s3cret" not in text + line


def test_where_no_file_can_be_written_a_bug_is_raised(project):
    write_text("runs", "a file in its place")
    with pytest.raises(TypeError):
        running.run_stage(lambda params: len(3))


def test_a_reader_that_leaves_a_stage_is_no_bug(project):
    def fail(params):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        running.run_stage.__wrapped__(fail)
    assert not [*project.rglob("traceback-*")]


def test_params_that_change_before_the_stage_hashes_them_do_not_pass(project, make_params):
    def edited(params) -> str:
        Path("params.yaml").write_text(json.dumps(make_params().model_dump() | {"seed": 9}))
        return "done"

    with pytest.raises(SystemExit, match="seed: became 9"):
        running.run_stage(edited)


def test_a_stage_started_by_hand_refuses_inputs_of_other_params(project, monkeypatch, capsys):
    shutil.copy(ROOT / "dvc.yaml", project)
    monkeypatch.setattr(sys, "argv", ["stages/train_classifier.py"])
    monkeypatch.delenv("DVC_STAGE", raising=False)
    for seed in (0, 5):
        made = stage_params("prepare") | {"seed": seed, "ray.num_workers": 9}
        write_json("results/sources/prepare.json", {"params": made})
        if seed == 0:
            running.run_stage(lambda params: "done")
    with pytest.raises(SystemExit, match=r"^error: seed: prepare ran with 5, .* `dvc repro train_"):
        running.run_stage(lambda params: "done")
    monkeypatch.setenv("DVC_STAGE", "train_classifier")
    running.run_stage(lambda params: "done")
    assert capsys.readouterr().out.count("done") == 2


def test_a_stage_that_ends_at_once_says_one_line(project):
    """MLflow's import, which began ahead, is stopped by the end of the process."""
    shutil.copy(ROOT / "dvc.yaml", project)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace('"floor"', '"none"'))
    ended = subprocess.run(
        (sys.executable, "-m", "stages.schedules"),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1, ended.stderr


@pytest.fixture
def stage(project, make_params, monkeypatch) -> Stage:
    """A stage whose tracking server is not there."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(mlflow_sync, "ROUND", 0.02)
    return Stage("edit", make_params())


def full(self, ok):
    raise UserError("cannot write runs/log", "No space left on device")


def test_an_end_that_cannot_be_logged_hides_no_error_and_costs_no_result(
    stage, monkeypatch, capsys
):
    monkeypatch.setattr(RunLog, "finish", full)
    with pytest.raises(UserError, match="loss became nan"), stage:
        raise UserError("loss became nan")
    assert "edit: cannot write runs/log: No space left" in capsys.readouterr().out
    with stage:
        pass
    source = json.loads(Path("results/sources/edit.json").read_bytes())
    assert source["run_id"] == "" and source["key"] == stage.hash


def test_a_stage_says_what_is_still_to_be_sent_and_removes_what_a_killed_one_left(stage, capsys):
    Path("results/.rows.csv.0123abcd.tmp").parent.mkdir()
    for name in (".rows.csv.0123abcd.tmp", ".other.csv.0123abcd.tmp", "rows.csv"):
        Path("results", name).write_text("half")
    with stage:
        left = {path.name for path in Path("results").iterdir()}
        stage.run.log_metrics({"fid": 1.0})
    assert left == {".other.csv.0123abcd.tmp", "rows.csv"}
    assert "edit: logs are still to be sent to http://127.0.0.1:9" in capsys.readouterr().out
