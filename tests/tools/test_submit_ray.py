"""Jobs on a Ray head: in a shared folder, through a DVC remote, and where there is no head."""

import re
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.runtime.files import read_json
from tests.job_elsewhere import (
    KEYS,
    add_remote,
    environment_of,
    forget,
    outputs,
    run_elsewhere,
    s3_store,
    store_environment,
    submitted,
)
from tests.project import SECRET, files_with_secret
from tests.ray_head import TOKEN, kill_node, node_apart, ray_head, trains

pytestmark = pytest.mark.slow

AWAY = {"MLFLOW_TRACKING_URI": f"http://me:{SECRET}@127.0.0.1:9"}


def test_a_sweep_in_a_shared_folder_comes_back_by_itself(finished, tmp_path):
    """`make submit` on loopback: a head, a job, and the same rows as without one."""
    project = finished.copy(tmp_path / "project")
    rows = project.folder / "results/sweep/rows.csv"
    expected = rows.read_bytes()
    forget(project, "sweep")
    project.env |= TOKEN
    venv = Path(sys.executable).parents[1]
    (venv / ".ready").touch()
    with ray_head(project.env) as (address, temp, _):
        options = (f"ADDRESS={address}", "STAGE=sweep", f"VENV={venv}", "-o", f"{venv}/.ready")
        output = project.run("make", "submit", *options, **AWAY)
        output += project.run("ray", "job", "list", "--address", address)
        assert files_with_secret(project.folder, temp) == []
    assert "Running stage 'sweep'" in output and rows.read_bytes() == expected
    assert "WebSocket" not in output
    assert "up to date" in project.run("dvc", "status", "sweep")
    assert "still to be sent to http://me:***@127.0.0.1:9" in output and SECRET not in output


@pytest.fixture
def store(monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    with s3_store() as url:
        yield url


@pytest.mark.soak
def test_a_job_elsewhere_survives_a_killed_node_and_leaves_nothing_to_compute(
    finished, store, tmp_path
):
    """The sweep on two nodes, of which one is killed while it trains a trial. Another HOME, no
    folder in common: what both know is the store. The job gets from there what was made here, and
    home from there what the job made, all of it on nodes that see no folder of the job's."""
    home, stage, log = finished.copy(tmp_path / "home"), "sweep", tmp_path / "log"
    forget(home, stage)
    add_remote(home, store)
    home.set(ray__storage_path="s3://store/runs")
    away = tmp_path / "away"
    away.mkdir()
    away_env = environment_of(home, away)
    home.env |= TOKEN | AWAY | store_environment(store)
    with ExitStack() as stack:
        head = stack.enter_context(ray_head(away_env, cpus=0))
        lost, _ = [
            stack.enter_context(node_apart(head, tmp_path, away_env, cpus=1, number=number))
            for number in (2, 3)
        ]
        job = submitted(home, stage, head.address, log)
        while job.poll() is None and not trains(lost):
            time.sleep(0.1)
        kill_node(lost)
        assert job.wait(timeout=300) == 0, log.read_text()
        output = log.read_text() + home.run("ray", "job", "list", "--address", head.address)
        assert files_with_secret(away, head.temp) == []
    assert re.findall(r"Running stage '(\w+)'", output) == [stage] and SECRET not in output
    ran, _ = home.repro("--pull", stage)
    assert ran == [] and outputs(home, stage) == outputs(finished, stage)
    record = read_json(home.folder / f"results/sources/{stage}.json")
    assert record["commit"] == home.run("git", "rev-parse", "HEAD").strip()
    assert record["dirty"] is True  # .dvc/config


@pytest.mark.soak
def test_all_stages_elsewhere_leave_what_they_would_have_left_at_home(
    finished, tmp_path, monkeypatch
):
    """On two nodes, one killed in the sweep; at home nothing runs, and every hash is the same."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    assert run_elsewhere(finished, tmp_path, kill=True) == ([], [])
