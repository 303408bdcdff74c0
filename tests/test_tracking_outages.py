"""A real MLflow: its server behind a proxy that fails, and a fresh database that many open at
once."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pipeline.runtime.delivery import Delivery, load_mlflow
from pipeline.runtime.sync import sync
from pipeline.runtime.tracking import Run, open_run

from pipeline.runtime.errors import UserError
from tests.failing_proxy import FailingProxy
from tests.mlflow_server import mlflow_server

pytestmark = [pytest.mark.slow, pytest.mark.timed]

WRITERS, ROWS = 16, 20


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[int]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as port:
        yield port


@pytest.fixture
def proxy(server, monkeypatch, tmp_path, capfd) -> Iterator[FailingProxy]:
    monkeypatch.chdir(tmp_path)
    load_mlflow()  # its import is no wait for the server
    Path("params.yaml").write_text("a: 1\n")
    failing = FailingProxy(server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:s3cret@127.0.0.1:{failing.port}")
    yield failing
    failing.close()
    assert "s3cret" not in "".join(capfd.readouterr())  # MLflow prints addresses of runs


def logged(uri: str, run: Run) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    history = MlflowClient(uri).get_metric_history(run.run_id, "loss")
    return sorted((point.step, point.value) for point in history)


def check(server: int, run: Run, rows: int) -> None:
    from mlflow import MlflowClient

    uri = f"http://127.0.0.1:{server}"
    assert logged(uri, run) == [(step, step / 7) for step in range(rows)]
    client = MlflowClient(uri)
    info = client.get_run(run.run_id).info
    assert info.status == "FINISHED" and info.experiment_id
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["params.yaml"]
    (found,) = client.search_runs([info.experiment_id], f"attributes.run_name = '{info.run_name}'")
    assert found.info.run_id == run.run_id


def seconds(action) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


@pytest.mark.parametrize("mode", ["refused", "silent", "errors", "lost", "busy", "page"])
def test_an_outage_in_the_middle_loses_nothing(server, proxy, tmp_path, mode):
    folder = tmp_path / "outbox"
    run = open_run(mode, mode, {"a": 1}, mode, folder)
    delivery = Delivery(folder)
    for step in range(30):
        proxy.mode = "open" if step < 10 else mode
        run.log_metrics({"loss": step / 7}, step)
        time.sleep(0.3 if step in (9, 10) else 0.02)
    run.finish(ok=True)
    left = []
    assert seconds(lambda: left.append(delivery.close())) < 2.5
    assert "still to be sent" in left[0] and "s3cret" not in left[0]
    proxy.mode = "open"
    assert "sent to" in sync_patiently(folder)
    check(server, run, 30)


def sync_patiently(folder: Path) -> str:
    """The thread of a delivery that was given up may be at a request for 20 seconds more."""
    for _ in range(30):
        try:
            return sync(folder)
        except UserError:
            time.sleep(1)
    raise AssertionError("not all was sent in 30 seconds")


def test_latency_costs_neither_time_nor_rows(server, proxy, tmp_path):
    proxy.latency = 5
    folder = tmp_path / "outbox"

    def stage() -> None:
        run = open_run("latency", "latency", {"a": 1}, "latency", folder)
        delivery = Delivery(folder)
        for step in range(60):
            run.log_metrics({"loss": step / 7}, step)
            time.sleep(0.15)
        run.finish(ok=True)
        assert "still to be sent" in delivery.close()
        runs.append(run)

    runs: list[Run] = []
    assert seconds(stage) < 1.15 * 60 * 0.15 + 60 * 0.05  # and its writes to disk
    proxy.latency = 0
    sync_patiently(folder)
    check(server, runs[0], 60)


KILLED = """
import os, signal
from pipeline.runtime.server import Server
os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
Server(os.environ["MLFLOW_TRACKING_URI"]).ask(lambda client: None)
"""


def test_a_kill_while_the_database_is_set_up_does_not_break_it(tmp_path, monkeypatch):
    """MLflow's own database of a kill, or of a full disk, in the middle is broken for good."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    killed = subprocess.run((sys.executable, "-c", KILLED), check=False)
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "mlflow.db").exists()
    assert len(list(tmp_path.glob(".mlflow.db.*.tmp"))) == 1

    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("a: 1\n")
    run = open_run("key", "stage", {"a": 1}, "experiment", tmp_path / "outbox")
    run.log_metrics({"loss": 0.5}, 3)
    sync(tmp_path / "outbox")
    assert logged(uri, run) == [(3, 0.5)]
    assert list(tmp_path.glob(".mlflow.db.*.tmp")) == []


def test_a_database_that_is_deleted_or_locked_in_the_middle_costs_neither_rows_nor_time(
    tmp_path, monkeypatch
):
    file = tmp_path / "mlflow.db"
    uri = f"sqlite:///{file}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("a: 1\n")
    delivery = Delivery(tmp_path / "outbox")
    run = open_run("key", "stage", {"a": 1}, "experiment", tmp_path / "outbox")
    run.log_metrics({"loss": 0.0}, 0)
    wait_for(lambda: run.run_id and logged(uri, run) == [(0, 0.0)])
    file.unlink()  # a connection that is kept would write on to what nobody sees
    run.log_metrics({"loss": 1 / 7}, 1)
    wait_for(lambda: file.exists() and logged(uri, run) == [(0, 0.0), (1, 1 / 7)])
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        run.log_metrics({"loss": 2 / 7}, 2)
        run.finish(ok=True)
        remains = []
        assert seconds(lambda: remains.append(delivery.close())) < 6
        assert "still to be sent" in remains[0]
    sync_patiently(tmp_path / "outbox")
    assert logged(uri, run) == [(step, step / 7) for step in range(3)]


def wait_for(ready) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _write(number: int, folder: Path, stores: dict[str, str], start) -> None:
    os.chdir(folder)
    load_mlflow()
    for name, uri in stores.items():
        os.environ["MLFLOW_TRACKING_URI"] = uri
        start.wait(timeout=300)
        outbox = folder / name / f"outbox{number}"
        run = open_run(f"writer{number}", f"writer{number}", {"n": number}, "many", outbox)
        delivery = Delivery(outbox)
        for step in range(ROWS):
            run.log_metrics({"loss": step / 7}, step)
        run.finish(ok=True)
        delivery.close()


def test_many_that_write_at_once_lose_nothing(server, tmp_path, monkeypatch):
    """To a database that none has opened before, and to a server."""
    local, remote = f"sqlite:///{tmp_path}/mlflow.db", f"http://127.0.0.1:{server}"
    stores = {"database": local, "server": remote}
    (tmp_path / "params.yaml").write_text("a: 1\n")
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(WRITERS)
    writers = [
        spawn.Process(target=_write, args=(n, tmp_path, stores, start)) for n in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    for name, uri in stores.items():
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        for number in range(WRITERS):
            outbox = tmp_path / name / f"outbox{number}"
            sync(outbox)
            run = open_run(f"writer{number}", "", {}, "many", outbox)
            assert logged(uri, run) == [(step, step / 7) for step in range(ROWS)]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///folder", "is a folder"),
        ("sqlite:///fifo", "is a pipe"),  # once replaced by a database, as /dev/null was
        ("sqlite:///text", "not a database"),
    ],
)
def test_a_database_that_is_none_is_left_as_it_is_and_not_waited_for(
    tmp_path, monkeypatch, place, said
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    Path("folder").mkdir()
    os.mkfifo("fifo")
    for name in ("params.yaml", "text"):
        Path(name).write_text("a: 1\n")
    delivery = Delivery(tmp_path / "outbox")
    run = open_run("key", "stage", {"a": 1}, "experiment", tmp_path / "outbox")
    run.finish(ok=True)
    remains = []
    assert seconds(lambda: remains.append(delivery.close())) < 5
    assert said in remains[0] and "still to be sent" in remains[0]
    assert Path("fifo").is_fifo() and Path("text").read_text() == "a: 1\n"
