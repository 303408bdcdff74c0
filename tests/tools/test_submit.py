"""`maskgit submit` without a cluster: what the command sends and shows, and how it ends."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import ClientError

from pipeline.runtime.errors import UserError
from pipeline.tools import submit as module
from pipeline.tools.job import KEY, ORDER, Order
from pipeline.tools.submit import TRIES, submit
from tests.errors import refused
from tests.project import ROOT, SECRET

ADDRESS = "http://127.0.0.1:8265"


class Cluster:
    """Stands for Ray's client.

    Args:
        ends: the job's status, or an error.
        logs: the log, or an error, for each request in turn; the last answers later requests too.
    """

    def __init__(self, ends, *logs):
        self.ends, self.logs = ends, list(logs or [""])

    def submit_job(self, entrypoint: str, runtime_env: dict) -> str:
        self.command, self.folder = entrypoint, Path(runtime_env["working_dir"])
        self.sealed = (self.folder / ORDER).read_bytes()
        assert SECRET.encode() not in self.sealed and SECRET not in entrypoint
        if isinstance(self.ends, RuntimeError):
            raise self.ends
        return "job7"

    def get_job_info(self, job):
        if isinstance(self.ends, BaseException):
            raise self.ends
        status = self.ends if len(self.logs) == 1 else "RUNNING"
        return SimpleNamespace(status=status, message="python: not found")

    def get_job_logs(self, job):
        log = self.logs.pop(0) if len(self.logs) > 1 else self.logs[0]
        if isinstance(log, Exception):
            raise log
        return log


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@host")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(module, "default_remote", lambda: None)
    monkeypatch.setattr(module, "PAUSE", 0)

    def run(cluster: Cluster) -> str:
        monkeypatch.setattr(module, "_client", lambda address: cluster)
        try:
            return submit("sweep", ADDRESS)
        finally:
            assert not (cluster.folder / ORDER).exists()

    return run


@pytest.mark.parametrize(
    ("ends", "log", "said"),
    [
        ("FAILED", "", "final status FAILED: python: not found"),
        ("FAILED", "error: no such schedule\nERROR: failed to reproduce\n", "no such schedule"),
        ("FAILED", "ERROR: no keys\n\nHaving any troubles?\n", "no keys"),
        ("FAILED", "Traceback\nModuleNotFoundError: no 'dvc'\n", "ModuleNotFoundError"),
        ("FAILED", f"Running entrypoint: {KEY}=a1b2= exec python\n", f"{KEY}=... exec"),
        (ConnectionError("the head is gone"), "", "ray job logs --follow job7"),
        (RuntimeError("No available agent to submit job"), "", "--dashboard-agent-listen-port"),
        (KeyboardInterrupt(), "", f"ray job stop job7 --address {ADDRESS}` stops the job"),
    ],
    ids=["silent", "stage", "DVC", "Python", "key", "head gone", "no agent", "ctrl-c"],
)
def test_a_job_that_does_not_finish_is_one_line_with_the_way_out(run, ends, log, said):
    with pytest.raises(UserError, match=re.escape(said)):
        run(Cluster(ends, log))


def test_a_lost_connection_is_not_the_end_of_the_job(run, capsys):
    """Shown output is not shown again, and the order's key is never shown."""
    log = f"Running entrypoint: {KEY}=a1b2= exec python\none\ntwo\nthree"
    grows = [log[:5], log[:30], RuntimeError("closed"), log[:60], ClientError("x"), "", log]
    assert run(Cluster("SUCCEEDED", *grows)) == "job job7 has finished; results are in this folder"
    shown = capsys.readouterr().out.partition("\n")[2]
    assert shown == f"Running entrypoint: {KEY}=... exec python\none\ntwo\nthree"
    with refused(way_out="continues"):
        run(Cluster("SUCCEEDED", *[OSError("closed")] * (TRIES + 1)))


def test_the_job_opens_what_was_sealed(run, monkeypatch, tmp_path):
    cluster = Cluster("SUCCEEDED")
    run(cluster)
    (tmp_path / ORDER).write_bytes(cluster.sealed)
    monkeypatch.setenv(KEY, cluster.command.partition(f"{KEY}=")[2].split()[0])
    order = Order.opened(tmp_path)
    assert (order.stage, order.remote) == ("sweep", None)
    assert order.environment["MLFLOW_TRACKING_URI"] == f"http://me:{SECRET}@host"
    assert KEY not in os.environ  # the stages do not see the key


@pytest.mark.slow
def test_the_cluster_is_the_one_that_was_named(monkeypatch):
    """Ray's client would prefer RAY_ADDRESS, and send passwords there."""
    from ray.job_submission import JobSubmissionClient

    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:8265")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.setattr(module, "why_unreachable", lambda host, port: None)
    check = "_check_connection_and_version"
    monkeypatch.setattr(JobSubmissionClient, check, lambda self, **version: None)
    assert module._client("http://named:8265")._address == "http://named:8265"
    assert "RAY_ADDRESS" not in os.environ


@pytest.mark.parametrize(
    ("stage", "address", "subject"),
    [
        (None, "head:8265", "--address"),
        (None, "http://head:port", "--address"),
        ("swep", ADDRESS, "dvc.yaml"),
        (None, "http://127.0.0.1:1", "the Ray dashboard at"),
    ],
)
def test_what_cannot_be_submitted_is_refused(stage, address, subject, monkeypatch):
    monkeypatch.chdir(ROOT)
    with refused(match=f"^{subject}"):
        submit(stage, address)
