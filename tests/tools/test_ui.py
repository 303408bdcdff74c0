"""`maskgit ui`: the printed links, and the error without runs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from types import SimpleNamespace
from unittest.mock import Mock
from urllib.parse import unquote

import pytest

from pipeline.tools.ui import links
from tests.errors import refused
from tests.project import ROOT
from tests.tiny_project import with_params

SERVER = "http://127.0.0.1:5000"


def test_links_open_all_runs_and_the_trials_of_the_last_sweep(monkeypatch):
    client, run = Mock(), SimpleNamespace(info=SimpleNamespace(run_id="run1"))
    client.get_experiment_by_name.return_value.experiment_id = "7"
    monkeypatch.setattr("mlflow.MlflowClient", lambda uri: client)
    client.search_runs.return_value = []
    runs = f"{SERVER}/#/experiments/7/runs?workflowType=machine_learning"
    assert links("http://store", SERVER, "maskgit", 0) == {"all runs": runs}
    client.search_runs.return_value = [run]
    found = unquote(links("http://store", SERVER, "maskgit", 3)["Figure 8"])
    assert "parentRunId` = 'run1' AND params.seed = '3'" in found


@pytest.mark.parametrize(
    ("uri", "way_out"),
    [("sqlite:///nowhere/mlflow.db", "dvc repro"), ("http://127.0.0.1:9", "MLFLOW_TRACKING_URI")],
)
def test_no_experiment_and_no_server_are_one_line(uri, way_out):
    with refused(way_out=way_out):
        links(uri, SERVER, "maskgit", 0)


@pytest.mark.soak
def test_the_server_shows_the_runs_until_ctrl_c(tmp_path):
    from mlflow import MlflowClient

    params = with_params()
    (tmp_path / "params.yaml").write_text(json.dumps(params.model_dump()))
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.create_run(client.create_experiment(params.mlflow.experiment), run_name="sweep")
    log, env = tmp_path / "ui.log", {k: v for k, v in os.environ.items() if "MLFLOW" not in k}
    with open(log, "w") as output:
        process = subprocess.Popen(
            (sys.executable, "-m", "pipeline", "ui"),
            cwd=tmp_path, env=env | {"PYTHONPATH": str(ROOT)},
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    while True:
        assert process.poll() is None, log.read_text()
        if found := re.search(r"(?m)^Figure 8: +(\S+)$", log.read_text()):
            with suppress(OSError):
                urllib.request.urlopen(found[1].partition("#")[0], timeout=5).close()
                break
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C
    process.wait(timeout=20)
    assert "Traceback" not in log.read_text()
