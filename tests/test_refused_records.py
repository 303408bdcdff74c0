"""What the tracking server, or a proxy before it, refuses: it is named, and stops nothing else."""

import shutil
from pathlib import Path

import pytest
from pipeline.runtime.sync import sync
from pipeline.runtime.tracking import open_run

from pipeline.runtime.errors import UserError
from tests.tracking_server import check_everything, log_everything


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "outbox"


def test_a_file_that_a_proxy_finds_too_large_is_named_and_stops_nothing_else(server, folder):
    log_everything(folder)
    server.fails = lambda request: 413 if request == "log_artifact" else None
    assert "refused for good: " in (said := sync(folder)) and "413" in said
    check_everything(server, files=False)
    assert "0 records sent" in sync(folder)


@pytest.mark.parametrize("code, way_out", [(401, "MLFLOW_TRACKING_TOKEN"), (502, "start the serv")])
def test_a_server_that_asks_for_a_password_is_told_from_one_that_is_away(
    server, folder, code, way_out
):
    log_everything(folder)
    server.fails = lambda request: code
    with pytest.raises(UserError, match=f"47 of 47 records are still to be sent.*{way_out}"):
        sync(folder)


def test_what_the_server_refuses_is_named_and_stops_nothing_else(server, folder):
    run = open_run("key", "stage", {"lr": 1}, "experiment", folder)
    for step in range(9):
        run.log_metrics({"loss": float(step), "$" if step == 4 else "nll": 0.0}, step)
    run.finish(ok=True)
    said = sync(folder)
    assert said.count("refused for good") == 1 and "not allowed" in said
    names = [name for name, *_ in server.run("stage").metrics]
    assert names.count("loss") == 9 and names.count("nll") == 8


def test_a_param_that_changed_stays_what_it_was(server, folder):
    open_run("key", "stage", {"lr": 1}, "experiment", folder)
    sync(folder)
    shutil.rmtree(folder)  # as by hand: the server knows the run, the folder does not
    open_run("key", "stage", {"lr": 2, "seed": 0}, "experiment", folder)
    assert "refused" not in sync(folder)
    assert server.run("stage").params == {"lr": "1", "seed": "0"}
