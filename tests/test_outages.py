"""Outages during stages, each of which costs nothing: a choice of them, and all of them as a soak
test of two hours."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mlflow_server import mlflow_server
from tests.outages import Bench, cells
from tests.project import ROOT, Project


@pytest.fixture(scope="module")
def bench(finished, tmp_path_factory) -> Iterator[Bench]:
    server, other = (tmp_path_factory.mktemp(name) for name in ("server", "other"))
    with mlflow_server(server) as port, mlflow_server(other) as empty:
        yield Bench(finished, tmp_path_factory.mktemp("outages"), port, empty)


# One of each sort: a server that goes for good, one that is slow, a database that is deleted, a
# worker and a whole stage that are killed.
CHOSEN = [
    ("evaluate", "gone_for_good"),
    ("reject", "slow"),
    ("reject", "deleted"),
    ("sweep", "worker_killed"),
    ("train_classifier", "killed_and_cut"),
]


def factor() -> float:
    """How much longer a stage may take; beside other tests, times themselves differ by half."""
    return 3 if "PYTEST_XDIST_WORKER" in os.environ else 1.15


@pytest.mark.parametrize(
    ("stage", "outage"),
    [pytest.param(*c, marks=[pytest.mark.slow]) for c in CHOSEN]
    + [pytest.param(*c, marks=[pytest.mark.soak]) for c in cells() if c not in CHOSEN],
)
def test_an_outage_costs_neither_bytes_nor_rows(bench, stage, outage):
    trial = bench.attempt(stage, outage)
    if outage == "killed_and_cut" and stage == "train_classifier":
        # Of other stages it may be another file that is newest when they are killed, or none.
        assert any(said.startswith("damaged checkpoint") for said in trial.said)
    assert trial.delivered > 0 or stage in ("schedules", "analysis")  # which log no metric
    assert trial.took < factor() * trial.plain + 3  # half a second to begin with


@pytest.mark.soak
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize("stage", ["train_classifier"])
def test_a_full_disk_is_one_line_and_costs_nothing(bench, stage):
    trial = bench.attempt(stage, "full_disk")
    assert any(said.endswith("are too few") for said in trial.said)


NODES = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
node = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(node, allow_graceful=False)
print("killed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""


def training(log: Path) -> set[str]:
    """The trials that have told of a step."""
    return set(re.findall(r"(\w+/seed\d) .*loss", log.read_text()))


@pytest.mark.soak
def test_a_node_that_dies_costs_no_row(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    rows = project.folder / "results/sweep/rows.csv"
    expected = rows.read_bytes()
    shutil.rmtree(project.folder / "runs/sweep")
    rows.unlink()
    env = project.env | {"RAY_TMPDIR": f"/tmp/rn{os.getpid()}", "RAY_AUTH_MODE": "token"}
    cluster = subprocess.Popen(
        (sys.executable, "-c", NODES),
        cwd=ROOT,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = cluster.stdout.readline().strip()
        log = tmp_path / "log"
        with open(log, "w") as output:
            stage = subprocess.Popen(
                ("python", "-m", "stages", "sweep"),
                cwd=project.folder,
                env=env | {"RAY_ADDRESS": address},
                stdout=output,
                stderr=output,
            )
        while stage.poll() is None and len(training(log)) < 2:  # a node each
            time.sleep(0.1)
        assert stage.poll() is None, log.read_text()
        cluster.stdin.write("kill\n")
        cluster.stdin.flush()
        assert cluster.stdout.readline() == "killed\n"
        assert stage.wait(timeout=300) == 0, log.read_text()
    finally:
        cluster.stdin.close()
        cluster.wait(timeout=60)
    assert rows.read_bytes() == expected


def start(project: Project, *command: str) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        cwd=project.folder,
        env=project.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.soak
def test_of_two_sweeps_the_second_is_told_of_the_first(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    rows = project.folder / "results/sweep/rows.csv"
    expected = rows.read_bytes()
    shutil.rmtree(project.folder / "runs/sweep")
    both = [start(project, "python", "-m", "stages", "sweep") for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 1]
    (second,) = said[codes.index(1)].splitlines()  # nothing of what it began to do
    assert second.startswith("error: sweep: running already, process ")
    trials = [line for line in said[codes.index(0)].splitlines() if " done, " in line]
    assert len(trials) == len(set(trials)) == 3  # each was trained once
    assert rows.read_bytes() == expected


@pytest.mark.soak
def test_two_dvc_repro_end_with_the_same_bytes(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    made = project.folder / "results/reconstruction/rows.csv"
    expected = made.read_bytes()
    shutil.rmtree(project.folder / "runs/reconstruct")
    made.unlink()
    command = ("dvc", "repro", "--force", "--single-item", "reconstruct")
    first = start(project, *command)
    assert any("Running stage" in line for line in first.stdout)  # reads no further
    second = start(project, *command)
    assert first.poll() is None
    said = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert first.returncode == 0, said[0]
    assert second.returncode == 0 or "lock" in said[1] or "running already" in said[1]
    assert "traceback" not in (said[0] + said[1]).lower()
    assert made.read_bytes() == expected
