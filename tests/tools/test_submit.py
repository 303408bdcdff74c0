"""`maskgit submit` without a cluster: what it sends, shows, and how it ends."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import ClientError

from pipeline.runtime.errors import UserError
from pipeline.tools import submit as module
from pipeline.tools.job import KEY, ORDER, Order
from pipeline.tools.submit import TRIES, submit
from tests.project import ROOT, SECRET

ADDRESS = "http://127.0.0.1:8265"


class Cluster:
    """Stands for Ray's client.

    Args:
        ends: the job's status, or an error.
        prints: what the job prints.
        lost: after how many prints the connection is lost, time and again, and how.
    """

    def __init__(self, ends, prints=(), lost=()):
        self.ends, self.prints, self.lost = ends, prints, list(lost)

    def submit_job(self, entrypoint: str, runtime_env: dict) -> str:
        self.command, self.folder = entrypoint, Path(runtime_env["working_dir"])
        self.sealed = (self.folder / ORDER).read_bytes()
        assert SECRET.encode() not in self.sealed and SECRET not in entrypoint
        if isinstance(self.ends, RuntimeError):
            raise self.ends
        return "job7"

    async def tail_job_logs(self, job):
        count, error = self.lost[0] if self.lost else (len(self.prints), None)
        for text in self.prints[:count]:
            yield text
        if error:
            self.lost.pop(0)
            raise error

    def get_job_info(self, job):
        if isinstance(self.ends, BaseException):
            raise self.ends
        return SimpleNamespace(status=self.ends, message="python: not found")


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
    ("ends", "said"),
    [
        ("FAILED", "ended as FAILED: python: not found"),
        (ConnectionError("the head is gone"), "ray job logs --follow job7"),
        (RuntimeError("No available agent to submit job"), "--dashboard-agent-listen-port"),
        (KeyboardInterrupt(), f"`ray job stop job7 --address {ADDRESS}` ends it"),
    ],
    ids=["failed", "head gone", "no agent", "ctrl-c"],
)
def test_a_job_that_does_not_finish_is_one_line_with_the_way_out(run, ends, said):
    with pytest.raises(UserError) as raised:
        run(Cluster(ends))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("prints", "said"),
    [
        (["error: no such schedule\nERROR: failed to", " reproduce\n"], "no such schedule"),
        (["ERROR: no keys\n\n", "Having any troubles?\n"], "no keys"),
        (["Traceback\n", "ModuleNotFoundError: no 'dvc'\n"], "ModuleNotFoundError"),
        ([f"Running entrypoint: {KEY}=a1b2= exec python\n"], f"{KEY}=... exec"),
    ],
    ids=["stage", "DVC", "Python", "nothing"],
)
def test_a_failed_job_says_why(run, prints, said):
    with pytest.raises(UserError) as raised:
        run(Cluster("FAILED", prints))
    assert said in raised.value.reason


def test_a_lost_connection_is_not_the_end_of_the_job(run, capsys):
    """What was shown is not shown again, and the key to the order never."""
    lost = [(1, RuntimeError("closed")), (0, ClientError("no handshake")), (3, OSError())]
    prints = [f"Running entrypoint: {KEY}=a1b2= exec python\n", "one\ntw", "o\n", "three\n"]
    assert run(Cluster("SUCCEEDED", prints, lost)) == "job job7 has finished; its results are here"
    shown = capsys.readouterr().out.partition("\n")[2]
    assert shown == f"Running entrypoint: {KEY}=... exec python\none\ntwo\nthree\n"
    with pytest.raises(UserError) as raised:
        run(Cluster("SUCCEEDED", lost=[(0, OSError("closed"))] * TRIES))
    assert "goes on" in raised.value.way_out


def test_the_job_opens_what_was_sealed(run, monkeypatch, tmp_path):
    cluster = Cluster("SUCCEEDED")
    run(cluster)
    (tmp_path / ORDER).write_bytes(cluster.sealed)
    monkeypatch.setenv(KEY, cluster.command.partition(f"{KEY}=")[2].split()[0])
    order = Order.opened(tmp_path)
    assert order.stage == "sweep" and order.remote is None
    assert order.environment["MLFLOW_TRACKING_URI"] == f"http://me:{SECRET}@host"


def test_the_cluster_is_the_one_that_was_named(monkeypatch):
    """Ray's own client would talk to another, and tell it passwords."""
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
    with pytest.raises(UserError) as raised:
        submit(stage, address)
    assert raised.value.subject.startswith(subject)
