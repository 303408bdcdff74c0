"""Nodes that share no folder get code from Ray's working_dir, data from the DVC remote, and
checkpoints from the store at `ray.storage_path`."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.runtime.files import read_json
from tests.object_store import s3_store
from tests.project import SECRET, Project, files_with_secret
from tests.ray_head import TOKEN, kill_node, node_apart, ray_head

pytestmark = pytest.mark.soak

AWAY = f"http://me:{SECRET}@127.0.0.1:9"  # no tracking server listens there


@pytest.fixture
def home(tmp_path) -> Iterator[Project]:
    """A clone with the smoke preset, whose DVC remote and run directories are in an S3 store."""
    home = Project.clone(tmp_path / "home")
    home.run("python", "-m", "pipeline", "preset", "smoke")
    home.set(ray__storage_path="s3://store/runs")
    with s3_store() as environment:
        home.env |= TOKEN | environment | {"MLFLOW_TRACKING_URI": AWAY}
        home.run("dvc", "remote", "add", "--default", "store", "s3://store/maskgit")
        modify = ("dvc", "remote", "modify")
        home.run(*modify, "store", "endpointurl", environment["AWS_ENDPOINT_URL"])
        for name, value in (("access_key_id", "me"), ("secret_access_key", SECRET)):
            home.run(*modify, "--local", "store", name, value)
        yield home


@contextmanager
def submitted(
    home: Project, stage: str, cpus: list[int]
) -> Iterator[tuple[subprocess.Popen, list[psutil.Popen], Path]]:
    """Submit a stage to a cluster with another HOME. Nodes do not see the project (`node_apart`).

    `cpus` lists the CPUs of each node. Yields the process of `maskgit submit`, the nodes, and the
    log with the job's output. After the block, waits for the job, and checks that no log
    or file of the cluster contains the password.
    """
    folder = home.folder.parent
    log, away = folder / "log", folder / "away"
    away.mkdir()
    own = TOKEN.keys() | {"PYTHONPATH", "MLFLOW_TRACKING_URI"}
    env = {k: v for k, v in home.env.items() if k not in own and not k.startswith("AWS_")}
    env |= {"HOME": str(away)}
    with ExitStack() as stack:
        head = stack.enter_context(ray_head(env, cpus=0))
        nodes = [
            stack.enter_context(node_apart(head, folder, env, cpus=count, number=number))
            for number, count in enumerate(cpus, start=2)
        ]
        command = ("python", "-m", "pipeline", "submit", stage, "--address", head.address)
        job = home.start(*command, log=log)
        yield job, nodes, log
        assert job.wait(timeout=3600) == 0, log.read_text()[-3000:]
        said = log.read_text() + home.run("ray", "job", "list", "--address", head.address)
        assert SECRET not in said and files_with_secret(away, head.temp) == []


def works(node: psutil.Popen, name: str) -> bool:
    """Whether a process of the node has `name` in its command line, where Ray names its workers."""
    commands = (p.cmdline() for p in psutil.Process(node.pid).children(recursive=True))
    return any(name in word for command in commands for word in command)


def wait_until(ready: Callable[[], bool], job: subprocess.Popen, log: Path) -> None:
    while not ready():
        assert job.poll() is None, log.read_text()[-3000:]
        time.sleep(0.1)


def test_a_training_on_several_nodes_survives_a_killed_one(home):
    """The classifier's two workers run on two nodes; one node is killed after a checkpoint."""
    home.set(ray__num_workers=2, classifier__steps=1000, classifier__checkpoint_every=100)
    home.repro("prepare")
    with submitted(home, "train_classifier", cpus=[1, 1, 1]) as (job, nodes, log):
        wait_until(lambda: "00/1000  loss" in log.read_text(), job, log)
        kill_node(next(node for node in nodes if works(node, "RayTrainWorker")))
    assert home.repro("--pull", "train_classifier")[0] == []
    assert re.search(r"resuming from step \d+00 of 1000", log.read_text())


def test_all_stages_elsewhere_leave_what_they_would_have_left_at_home(home, finished):
    """One of two nodes is killed during a trial. `dvc repro --pull` at home then runs no stage, and
    all hashes are those of a run at home."""
    with submitted(home, "all", cpus=[2, 2]) as (job, nodes, log):
        wait_until(lambda: "Running stage 'sweep'" in log.read_text(), job, log)
        wait_until(lambda: works(nodes[0], "ray::ImplicitFunc.train"), job, log)
        kill_node(nodes[0])
    assert home.repro("--pull")[0] == []
    assert home.outputs() == finished.outputs()
    record = read_json(home.folder / "results/sources/sweep.json")
    assert record["commit"] == home.run("git", "rev-parse", "HEAD").strip()
    assert record["dirty"] is True  # .dvc/config and params.yaml were edited
