"""MLflow receives every row of the logs once, even if requests to its real database fail."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image

from pipeline.runtime import mlflow_sync
from pipeline.runtime.errors import UserError
from pipeline.runtime.mlflow_sync import Sync, sync, tracking_uri
from pipeline.runtime.run_log import RunLog
from tests.errors import refused
from tests.project import SECRET

ROWS = 5


def open_run(*described: Any) -> RunLog:
    """Begin or resume a run, as a stage does."""
    run = RunLog(*described).begin()
    run.log_artifact("params.yaml")
    return run


class FailingClient:
    """A client of a real database. `fails` returns the failure of a request: "down" (an error
    instead of the request), "lost" (an error after the request), or an exception to raise."""

    def __init__(self, real: MlflowClient):
        self.real, self.requests = real, 0
        self.fails: Callable[[str], Any] = lambda request: None

    def __getattr__(self, request: str) -> Any:
        def answer(*args: Any, **kwargs: Any) -> Any:
            self.requests += 1
            failure, refused = self.fails(request), MlflowException(f"{tracking_uri()}: refused")
            if failure and failure != "lost":
                raise refused if failure == "down" else failure
            result = getattr(self.real, request)(*args, **kwargs)
            if failure == "lost":
                raise refused
            return result

        return answer


@pytest.fixture
def project(tmp_path, monkeypatch, fresh_database) -> Path:
    """A project that logs to its own database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow_sync, "ROUND", 0.02)
    Path("params.yaml").write_text("a: 1\n")
    shutil.copy(fresh_database, "mlflow.db")
    return tmp_path


@pytest.fixture
def server(project, monkeypatch) -> FailingClient:
    """A server whose requests can fail. The server stores runs in the project's database."""
    client = FailingClient(MlflowClient(f"sqlite:///{project}/mlflow.db"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:5000")
    monkeypatch.setattr(mlflow, "MlflowClient", lambda uri: client)
    return client


def log_everything(runs: Path, rows: int = ROWS) -> tuple[RunLog, RunLog, RunLog]:
    """Write the logs of a reproduction, a stage and a trial, and return these logs."""
    kind = {"maskgit.kind": "reproduction"}
    whole = open_run(runs / "reproduction/0", "whole", "smoke", "exp", {"seed": 0}, kind)
    stage = open_run(runs / "sweep/1/log", "stage", "sweep", "exp", {"a.b": 1}, {}, whole.key)
    trial = stage.child("stage/trial", "cosine/seed0", {"seed": 3}, "A trial.").begin()
    for step in range(rows):
        stage.log_metrics({"loss": step / 7, "nll": 1.5}, step)
        trial.log_training({"step": step, "loss": step / 3})
    stage.log_dataset("digits", "abc", "/data")
    for step in (10, 20):
        Image.new("L", (30 + step, 4)).save("samples.png")
        trial.log_image("samples.png", "samples", step)
    trial.finish(ok=False)
    stage.finish(ok=True)
    whole.finish(ok=True)
    return whole, stage, trial


def history(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((p.step, p.value) for p in client.get_metric_history(run_id, name))


def check_everything(client: MlflowClient, rows: int = ROWS) -> None:
    experiment = client.get_experiment_by_name("exp")
    found = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert set(found) == {"smoke", "sweep", "cosine/seed0"}
    assert len(client.search_runs([experiment.experiment_id])) == 3
    whole, stage, trial = found["smoke"], found["sweep"], found["cosine/seed0"]
    assert history(client, stage.info.run_id, "loss") == [(s, s / 7) for s in range(rows)]
    assert history(client, stage.info.run_id, "nll") == [(s, 1.5) for s in range(rows)]
    assert history(client, trial.info.run_id, "train/loss") == [(s, s / 3) for s in range(rows)]
    assert stage.data.params == {"a.b": "1"} and trial.data.params == {"seed": "3"}
    assert [r.info.status for r in (whole, stage, trial)] == ["FINISHED", "FINISHED", "FAILED"]
    assert stage.data.tags["mlflow.parentRunId"] == whole.info.run_id
    assert trial.data.tags["mlflow.parentRunId"] == stage.info.run_id
    assert trial.data.tags["mlflow.note.content"] == "A trial."
    assert [d.dataset.name for d in stage.inputs.dataset_inputs] == ["digits"]
    files = [f.path for f in client.list_artifacts(stage.info.run_id)]
    pictures = [f.path for f in client.list_artifacts(trial.info.run_id, "images")]
    assert files == ["params.yaml"] and len(pictures) == 4
    assert trial.data.tags["mlflow.loggedImages"] == "True"


def test_everything_is_there_once_and_a_second_sync_sends_nothing(server, project):
    runs = project / "runs"
    whole, stage, trial = log_everything(runs)
    assert sync(runs) == "all logs were sent to http://me:***@127.0.0.1:5000"
    check_everything(server.real)
    assert all(run.run_id for run in (whole, stage, trial))
    before = server.requests
    sync(runs)
    assert server.requests == before + 1
    for note in runs.rglob("sent.json"):
        note.unlink()
    sync(runs)  # sends everything again; MLflow ignores repeated values
    check_everything(server.real)


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["down", "lost"])
@pytest.mark.parametrize("at", [0, 9, 18, 27, 36])
def test_a_request_that_fails_is_repeated_and_costs_nothing(server, project, failure, at):
    runs = project / "runs"
    log_everything(runs)
    count = iter(range(1000))
    # Three requests in a row fail, so that the second round fails too.
    server.fails = lambda request: failure if at <= next(count) < at + 3 else None
    for _ in range(4):
        try:
            sync(runs)
        except UserError as error:
            assert error.subject == "MLflow at http://me:***@127.0.0.1:5000"
            assert "start the server" in error.way_out and SECRET not in str(error)
    check_everything(server.real)
    assert not list(project.rglob("*.tmp"))


def test_rows_are_sent_while_the_stage_works_and_the_rest_at_its_end(project):
    runs = project / "runs"
    run = open_run(runs / "train/1/log", "k", "train", "exp", {}, {})
    work = Sync(runs)
    run.log_metrics({"loss": 1.0}, 1)
    client = MlflowClient(tracking_uri())
    deadline = time.monotonic() + 30
    while not (run.run_id and history(client, run.run_id, "loss")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.get_run(run.run_id).info.status == "RUNNING"
    run.log_metrics({"loss": 0.5}, 2)
    run.finish(ok=True)
    assert work.close() == ""
    assert history(client, run.run_id, "loss") == [(1, 1.0), (2, 0.5)]
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert client.get_run(run.run_id).info.artifact_uri.startswith((project / "mlruns").as_uri())


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_one_and_one_that_begins_anew_is_another(server, project):
    runs = project / "runs"
    _, stage, _ = log_everything(runs)
    sync(runs)
    before = stage.run_id
    other = open_run(runs / "reproduction/9", "other", "next", "exp", {}, {})
    again = open_run(stage.folder, "stage", "sweep", "exp", {"a.b": 2}, {}, other.key)
    again.log_metrics({"loss": 9.0}, 9)
    sync(runs)
    found = server.real.get_run(before)
    assert again.run_id == before and found.info.status == "RUNNING"
    assert found.data.tags["mlflow.parentRunId"] == other.run_id
    assert found.data.params == {"a.b": "1"}  # MLflow would refuse the new value
    assert len(history(server.real, before, "loss")) == ROWS + 1
    shutil.rmtree(runs)  # like `make clean`; the old run would get each row twice
    time.sleep(0.002)
    whole, stage, _ = log_everything(runs)
    shutil.rmtree(whole.folder)  # the stage is then sent without its parent
    sync(runs)
    assert len(server.real.search_runs(["1"])) == 6
    assert len(history(server.real, stage.run_id, "loss")) == ROWS


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["database", "run", "address"])
def test_what_mlflow_lost_is_sent_again(project, monkeypatch, fresh_database, lost):
    runs = project / "runs"
    _, stage, _ = log_everything(runs)
    sync(runs)
    if lost == "database":
        Path("mlflow.db").unlink()
    elif lost == "run":
        MlflowClient(tracking_uri()).delete_run(stage.run_id)
    else:
        shutil.copy(fresh_database, "other.db")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    stage.log_metrics({"loss": ROWS / 7, "nll": 1.5}, ROWS)
    trial = stage.child("stage/trial", "cosine/seed0", {}, "A trial.")
    trial.log_training({"step": ROWS, "loss": ROWS / 3})
    assert sync(runs) == f"all logs were sent to {tracking_uri()}"
    client = MlflowClient(tracking_uri())
    if lost == "run":
        (found,) = client.search_runs(["1"], "attributes.run_name = 'sweep'")
        assert len(history(client, found.info.run_id, "loss")) == ROWS + 1
    else:
        check_everything(client, ROWS + 1)


def test_what_mlflow_refuses_for_good_is_named_and_stops_nothing_else(server, project):
    runs = project / "runs"
    _, stage, _ = log_everything(runs)
    stage.log_metrics({"bad$name": 1.0}, 0)
    too_large = MlflowException("413 Client Error")
    too_large.response = type("Response", (), {"status_code": 413})
    server.fails = lambda request: too_large if request == "log_artifact" else None
    said = sync(runs)
    assert said.count("refused a record") == 7 and "bad$name" in said and "413" in said
    server.fails = lambda request: None
    assert sync(runs).startswith("all logs") and "refused" not in sync(runs)
    assert history(server.real, stage.run_id, "loss") == [(s, s / 7) for s in range(ROWS)]


def test_an_address_of_another_kind_is_one_line(project, monkeypatch):
    log_everything(project / "runs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://x")
    with refused(match="correct MLFLOW"):
        sync(project / "runs")


@pytest.mark.parametrize(
    ("given", "absolute"),
    [
        ("", "sqlite:///{}/mlflow.db"),
        (" http://127.0.0.1:5000 ", "http://127.0.0.1:5000"),
        ("sqlite:///logs/a.db?timeout=5", "sqlite:///{}/logs/a.db?timeout=5"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
    ],
)
def test_a_database_by_a_relative_path_lies_in_the_project(project, monkeypatch, given, absolute):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert tracking_uri() == absolute.format(project)
    monkeypatch.setenv("DVC_ROOT", "/project")  # as in `dvc exp run --temp`
    assert tracking_uri() == absolute.format("/project")
