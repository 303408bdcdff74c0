"""Nodes that share no folder: code by Ray's working_dir, data by the DVC remote, checkpoints by the
store of `ray.storage_path`."""

import re
import time
from contextlib import ExitStack

import psutil
import pytest

from tests.job_elsewhere import add_remote, environment_of, s3_store, store_environment, submitted
from tests.project import SECRET, Project, files_with_secret
from tests.ray_head import TOKEN, kill_node, node_apart, ray_head

pytestmark = pytest.mark.soak


def test_a_training_on_several_nodes_survives_a_killed_one(tmp_path):
    """The classifier's two workers are on two nodes, of which one is killed after a checkpoint."""
    home, log = Project.clone(tmp_path / "home"), tmp_path / "log"
    home.run("python", "-m", "pipeline", "preset", "smoke")
    home.set(
        ray__num_workers=2,
        ray__storage_path="s3://store/runs",
        classifier__steps=1000,
        classifier__checkpoint_every=100,
    )
    (away := tmp_path / "away").mkdir()
    with ExitStack() as stack:
        url = stack.enter_context(s3_store())
        home.env |= TOKEN | store_environment(url)
        add_remote(home, url)
        home.repro("prepare")
        environment = environment_of(home, away)
        head = stack.enter_context(ray_head(environment, cpus=0))
        nodes = [
            stack.enter_context(node_apart(head, tmp_path, environment, cpus=1, number=number))
            for number in (2, 3, 4)
        ]
        job = submitted(home, "train_classifier", head.address, log)
        while job.poll() is None and "00/1000  loss" not in log.read_text():
            time.sleep(0.1)
        kill_node(next(node for node in nodes if trains(node)))
        assert job.wait(timeout=300) == 0, log.read_text()
        assert files_with_secret(away, head.temp) == []
        assert home.repro("--pull", "train_classifier")[0] == []
    text = log.read_text()
    assert re.search(r"going on from step \d+00 of 1000", text) and SECRET not in text


def trains(node: psutil.Popen) -> bool:
    """Whether a worker of Ray Train is on the node."""
    commands = (p.cmdline() for p in psutil.Process(node.pid).children(recursive=True))
    return any("RayTrainWorker" in word for command in commands for word in command)
