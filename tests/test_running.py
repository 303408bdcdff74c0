"""How a stage begins and ends: its errors are a line."""

import os
import shutil
import subprocess
import sys

import pytest

from pipeline.runtime.dag import stage_params
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_json, write_text
from stages import running
from tests.params import write_params
from tests.project import ROOT


def fails(params):
    raise UserError("weights.bin", "is missing", "give another file")


@pytest.fixture
def run(make_params, tmp_path, monkeypatch):
    """Run a stage that fails, or another one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "load_params", make_params)
    monkeypatch.setattr(running, "load_mlflow", lambda: None)
    return lambda main=fails: running.run_stage(main)


def test_a_stage_started_by_hand_refuses_inputs_of_other_params(run, monkeypatch, tmp_path, capsys):
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    write_params(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stages/train_classifier.py"])
    monkeypatch.delenv("DVC_STAGE", raising=False)
    for seed in (0, 5):
        made = stage_params("prepare") | {"seed": seed}
        write_json("results/sources/prepare.json", {"params": made})
        if seed == 0:
            run(lambda params: "done")
    with pytest.raises(SystemExit, match=r"^error: seed: prepare ran with 5, .* `dvc repro train_"):
        run(lambda params: "done")
    monkeypatch.setenv("DVC_STAGE", "train_classifier")
    run(lambda params: "done")
    assert capsys.readouterr().out.count("done") == 2


@pytest.mark.parametrize(("stage", "said"), [("edit", True), ("cas", False), ("", False)])
def test_an_error_says_how_the_last_results_come_back(run, monkeypatch, stage, said):
    """Those that DVC deleted before it ran the stage."""
    write_text("dvc.lock", "schema: '2.0'\nstages:\n  edit: {cmd: python -m stages.edit}\n")
    monkeypatch.setenv("DVC_STAGE", stage)
    with pytest.raises(SystemExit) as caught:
        run()
    line = str(caught.value)
    assert (
        "last results of edit are in DVC's cache: with their params `dvc repro`" in line
    ) == said
    assert "\n" not in line


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\nstages: [\n", "stages:\n", "stages: 5\n"])
def test_a_damaged_lock_does_not_hide_the_error(run, monkeypatch, text):
    write_text("dvc.lock", text)
    monkeypatch.setenv("DVC_STAGE", "edit")
    with pytest.raises(SystemExit, match=r"^error: weights\.bin"):
        run()


def test_a_bug_is_a_line_that_names_the_file_of_its_traceback(run, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["stages/edit.py"])
    with pytest.raises(SystemExit) as caught:
        running.run_stage(lambda params: len(3))
    line = str(caught.value)
    file = tmp_path / "runs/traceback-edit.txt"
    assert line == (
        f"error: TypeError: object of type 'int' has no len() (unexpected: traceback in {file})"
    )
    text = file.read_text()
    assert "Traceback" in text and "len(3)" in text


def test_where_no_file_can_be_written_a_bug_is_raised(run, monkeypatch, tmp_path):
    write_text("runs", "a file in its place")
    with pytest.raises(TypeError):
        running.run_stage(lambda params: len(3))


def test_the_line_of_a_bug_shows_no_password_and_no_control_character(run, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@host")
    monkeypatch.setenv("MASKGIT_COMMIT", "a job, whose files nobody sees")

    def fail(params):
        raise ValueError("http://me:s3cret@host \x1b[2J \udcff")

    with pytest.raises(SystemExit) as caught:
        running.run_stage(fail)
    (file,) = tmp_path.glob("runs/traceback-*.txt")
    shown = str(caught.value) + file.read_text()
    assert "s3cret" not in shown and "\x1b" not in str(caught.value)


def test_a_reader_that_leaves_a_stage_is_no_bug(run, tmp_path, monkeypatch):
    def fail(params):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        running._run(fail)
    assert not [*tmp_path.rglob("traceback-*")]


def test_a_project_that_is_not_there_is_not_made(run, monkeypatch, tmp_path):
    monkeypatch.setenv("DVC_ROOT", f"{tmp_path}/none")
    with pytest.raises(
        SystemExit, match=r"^error: DVC_ROOT: .*/none is no project of DVC's; unset it"
    ):
        run()
    assert not [*tmp_path.iterdir()]


def test_a_stage_that_ends_at_once_says_one_line(run, tmp_path):
    """MLflow's import, which began ahead, is stopped by the end of the process."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    ended = subprocess.run(
        (sys.executable, "-m", "stages.schedules"),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1, ended.stderr
