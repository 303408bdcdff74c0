"""What is logged reaches the tracking server in order and once, whatever the server does; and no
stage waits for it."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline.runtime.delivery import Delivery
from pipeline.runtime.sync import sync
from pipeline.runtime.tracking import open_run

from pipeline.runtime import delivery, sending
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import temporary_beside
from tests.tracking_server import FakeServer, check_everything, fake_server, log_everything

URI = "http://user:s3cr%2Ft@127.0.0.1:5000"


@pytest.fixture
def server(monkeypatch, tmp_path) -> FakeServer:
    return fake_server(monkeypatch, tmp_path, URI)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "outbox"


def wait_for(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_a_stage_logs_while_others_are_sent_is_no_error(server, folder, monkeypatch):
    run, send = open_run("key", "stage", {"a.b": 1}, "experiment", folder), delivery.send

    def log_meanwhile(*arguments):
        refused = send(*arguments)
        run.log_metrics({"loss": 0.5}, 1)
        return refused

    monkeypatch.setattr(delivery, "send", log_meanwhile)
    assert "records sent to" in sync(folder)


def test_a_stage_that_ends_has_delivered_everything(server, folder):
    started = Delivery(folder)
    log_everything(folder)
    assert started.close() is None
    check_everything(server)


def test_rows_that_wait_are_sent_together(server, folder):
    log_everything(folder)
    assert "47 records sent" in sync(folder)
    check_everything(server)
    assert len(server.requests) <= 18  # two of them ask whether a file has arrived


def test_rows_arrive_while_the_stage_works(server, folder):
    started = Delivery(folder)
    run = open_run("key", "stage", {}, "experiment", folder)
    wait_for(lambda: run.run_id)
    run.log_metrics({"loss": 0.5}, 1)
    wait_for(lambda: server.runs[run.run_id].metrics)
    assert started.close() is None


@pytest.mark.parametrize("seed", range(5))
def test_requests_that_fail_or_lose_their_answer_cost_no_row_and_double_none(server, folder, seed):
    chance = random.Random(seed)
    server.fails = lambda request: chance.choice(["down", "lost", "page", None])
    log_everything(folder)
    for _ in range(2000):
        try:
            said = sync(folder)
            break
        except UserError as error:
            assert "are still to be sent" in str(error) and "\n" not in str(error)
    assert "records sent" in said
    check_everything(server)
    assert "0 records sent" in sync(folder)


def test_a_page_in_the_place_of_an_upload_is_noticed_behind_an_older_file(server, folder):
    """The server lists a file of that name, but not the one that was sent last."""
    run, file = open_run("key", "stage", {}, "experiment", folder), Path("note.txt")
    file.write_text("old")
    run.log_artifact(file)
    sync(folder)
    file.write_text("the new one")
    run.log_artifact(file)
    server.fails = lambda request: "page" if request == "log_artifact" else None
    with pytest.raises(UserError, match=r"note\.txt as it was sent"):
        sync(folder)
    assert server.run("stage").files["note.txt"] == "old"
    server.fails = lambda request: None
    assert "records sent" in sync(folder)
    assert server.run("stage").files["note.txt"] == "the new one"


def test_a_server_that_is_away_costs_nothing_and_gets_all_from_the_next_stage(server, folder):
    server.fails = lambda request: "down"
    began = time.monotonic()
    first = Delivery(folder)
    log_everything(folder)
    logged = time.monotonic() - began
    began = time.monotonic()
    left = first.close()
    assert time.monotonic() - began < 1 and logged < 5
    assert "47 records are still to be sent to http://user:***@127.0.0.1:5000" in left
    assert "maskgit sync" in left and "refused" in left

    server.fails = lambda request: None
    second = Delivery(folder)
    open_run("other", "next stage", {}, "experiment", folder).finish(ok=True)
    assert second.close() is None
    check_everything(server)
    assert server.run("next stage").status == "FINISHED"


def test_a_slow_server_is_not_waited_for(server, folder):
    server.fails, server.latency = lambda request: "slow", 5
    delivery.load_mlflow()
    started = Delivery(folder)
    log_everything(folder)
    began = time.monotonic()
    assert "it answers slowly" in started.close()
    assert time.monotonic() - began < 1.5


def test_an_answer_without_an_end_is_not_waited_for(server, folder, monkeypatch):
    log_everything(folder)
    server.fails, server.latency = lambda request: "slow", 60  # as of a byte now and then
    monkeypatch.setattr("pipeline.runtime.sync.LONGEST", 0.5)
    with pytest.raises(UserError, match=r"still to be sent .*: it is at one answer for more than"):
        sync(folder)


def test_a_database_that_was_deleted_gets_everything_again(server, folder):
    log_everything(folder, rows=3)
    sync(folder)
    server.runs.clear()
    run = open_run("key", "stage", {"a.b": 1}, "experiment", folder)
    run.log_metrics({"more": 1.0}, 7)
    sync(folder)
    names = [(name, step) for name, _, step, _ in server.run("stage").metrics]
    assert names == [("loss", 0), ("loss", 1), ("loss", 2), ("more", 7)]


def test_a_run_that_was_deleted_is_sent_again_and_no_other(server, folder):
    log_everything(folder, rows=3)
    sync(folder)
    del server.runs["run0"]  # the stage's
    run = open_run("key", "stage", {"a.b": 1}, "experiment", folder)
    run.finish(ok=True)
    sync(folder)
    assert len(server.run("stage").metrics) == 3
    assert len(server.runs) == 2 and server.run("trial") is server.runs["run1"]


def test_a_server_that_began_anew_gets_what_was_finished_too(server, folder):
    log_everything(folder)
    sync(folder)
    server.begin_anew()
    assert "47 records sent" in sync(folder)
    check_everything(server, files=False)  # of which no copy is kept


def test_a_server_that_begins_anew_in_the_middle_gets_everything(server, folder):
    started = Delivery(folder)
    run = open_run("key", "stage", {"a.b": 1}, "experiment", folder)
    child = run.child("key/trial", "trial", {"seed": 3}).begin()
    for step in range(20):
        if step == 10:
            wait_for(lambda: "run1" in server.runs and len(server.run("trial").metrics) == 10)
            server.begin_anew()
        run.log_metrics({"loss": 1 / (step + 1)}, step)
        child.log_metrics({"fid": step / 3}, step)
    child.finish(ok=False)
    run.finish(ok=True)
    assert started.close() is None
    check_everything(server, files=False)


def test_a_run_that_is_created_long_after_it_was_asked_for_is_removed(server, folder):
    """As by a server that was stopped, and found no run when it was asked the second time."""
    server.fails = lambda request: "down" if request == "set_terminated" else None
    log_everything(folder)
    with pytest.raises(UserError):
        sync(folder)
    log_everything(folder, rows=0)
    server._create_run("1", 0, {"maskgit.run": "key"}, "double")
    used = server._create_run("1", 0, {"maskgit.run": "key"}, "by another").info.run_id
    server.runs[used].params = {"a": "1"}
    server.fails = lambda request: None
    sync(folder)
    assert {run.name for run in server.runs.values()} == {"stage", "trial", "by another"}


def test_what_a_stage_left_that_ended_while_it_noted_what_was_sent_is_removed(server, folder):
    log_everything(folder)
    for log in folder.glob("*/log.jsonl"):
        temporary_beside(log.with_name("sent.json")).write_text("{")
    sync(folder)
    assert list(folder.rglob(".*")) == []
    check_everything(server)


@pytest.mark.parametrize("after", ["remove_copy", "write_json"])
def test_a_stage_that_ends_when_a_file_was_sent_leaves_no_copy_of_it(
    server, folder, monkeypatch, after
):
    log_everything(folder)
    work, calls = getattr(sending, after), [0]

    def ends(*arguments):
        work(*arguments)
        calls[0] += 1
        if calls[0] % 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(sending, after, ends)
    ended = 0
    while True:
        try:
            sync(folder)
            break
        except KeyboardInterrupt:
            ended += 1
    assert ended and list(folder.glob("*/files/*")) == []
    check_everything(server)


@pytest.mark.parametrize("size", [10**9, 10**400, -1, True])
def test_a_note_of_bytes_that_are_not_there_costs_no_record(server, folder, size):
    log_everything(folder, rows=3)
    sync(folder)
    for note in folder.glob("*/sent.json"):
        note.write_text(json.dumps(json.loads(note.read_text()) | {"bytes": size}))
    log_everything(folder)
    sync(folder)
    check_everything(server)


def test_another_server_does_not_get_what_waits_for_this_one(server, folder, monkeypatch):
    log_everything(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    said = sync(folder)
    assert "0 records sent to http://elsewhere:5000" in said
    assert "47 wait for http://user:***@127.0.0.1:5000" in said
    assert server.runs == {}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    sync(folder)
    check_everything(server)


def test_a_password_is_nowhere_but_in_requests(server, folder, capsys):
    server.fails = lambda request: "down"
    started = Delivery(folder)
    log_everything(folder)
    shown = started.close() + "".join(capsys.readouterr())
    with pytest.raises(UserError) as error:
        sync(folder)
    for text in (shown, str(error.value)):
        assert "s3cr" not in text and "user:***@" in text
    written = [path for path in folder.parent.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if b"s3cr" in path.read_bytes()]
    assert server.uri == URI
