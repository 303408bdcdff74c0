"""The end of a stage: what goes wrong with its log hides neither its results nor its error."""

import json
from pathlib import Path

import pytest

from pipeline.runtime import mlflow_sync
from pipeline.runtime import stage as stage_module
from pipeline.runtime.errors import UserError
from pipeline.runtime.run_log import RunLog
from pipeline.runtime.stage import Stage


@pytest.fixture
def stage(make_params, tmp_path, monkeypatch) -> Stage:
    """A stage whose tracking server is not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(mlflow_sync, "ROUND", 0.02)
    Path("params.yaml").write_text(json.dumps(make_params().model_dump()))
    stages = {"edit": {"params": ["seed"], "deps": [], "outs": ["results/rows.csv"]}}
    Path("dvc.yaml").write_text(json.dumps({"stages": stages}))
    return Stage("edit", make_params())


def full(self, ok):
    raise UserError("cannot write runs/log: No space left on device")


def test_an_error_comes_out_though_its_end_cannot_be_logged(stage, monkeypatch, capsys):
    with pytest.raises(UserError, match="loss became nan"), stage:
        monkeypatch.setattr(RunLog, "finish", full)
        raise UserError("loss became nan")
    assert "edit: cannot write runs/log: No space left" in capsys.readouterr().out


def test_a_finished_stage_keeps_its_results_though_its_end_cannot_be_logged(stage, monkeypatch):
    with stage:
        monkeypatch.setattr(RunLog, "finish", full)
    source = json.loads(Path("results/sources/edit.json").read_bytes())
    assert source["run_id"] == "" and source["key"] == stage.hash


def test_a_stage_says_what_is_still_to_be_sent(stage, capsys):
    with stage:
        stage.run.log_metrics({"fid": 1.0})
    said = capsys.readouterr().out
    assert "edit: logs are still to be sent to http://127.0.0.1:9 (Connection refused)" in said


def test_a_stage_that_is_running_already_leaves_its_log_alone(stage, monkeypatch):
    def taken(*_):
        raise UserError("edit is running already")

    monkeypatch.setattr(stage_module, "run_dir", taken)
    with pytest.raises(UserError, match="running already"), stage:
        pass
    assert not Path("runs/edit").exists()


def test_what_a_killed_process_left_beside_the_outputs_is_removed(stage):
    Path("results/.rows.csv.0123abcd.tmp").parent.mkdir()
    for name in (".rows.csv.0123abcd.tmp", ".other.csv.0123abcd.tmp", "rows.csv"):
        Path("results", name).write_text("half")
    with stage:
        left = {path.name for path in Path("results").iterdir()}
    assert left == {".other.csv.0123abcd.tmp", "rows.csv"}
