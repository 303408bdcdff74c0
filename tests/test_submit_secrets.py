"""What `maskgit submit` tells a job, a password perhaps, is in no file and no list of jobs."""

import io
import os
import socket
import zipfile
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from aiohttp import ClientError
from ray.job_submission import JobSubmissionClient

from pipeline.runtime.errors import UserError
from pipeline.tools.submit import client as module
from pipeline.tools.submit import follow
from pipeline.tools.submit.client import submit
from pipeline.tools.submit.order import FILE, KEY, Order
from tests.project import ROOT, SECRET


class Cluster:
    """Stands for Ray's client.

    Args:
        ends: the job's status, or what is raised in its place.
        prints: what it prints.
        lost: after how much of it the connection is lost, time and again, and how; None is an end
            that is none.
    """

    def __init__(self, ends, prints=(), lost=()):
        self.ends, self.prints, self.lost = ends, prints, list(lost)
        self.packages: list[Path] = []

    def submit_job(self, entrypoint: str, runtime_env: dict) -> str:
        package = Path(runtime_env["working_dir"])
        self.packages.append(package)
        self.command = entrypoint
        with zipfile.ZipFile(package) as file:
            self.sealed = file.read(FILE)
        assert SECRET.encode() not in package.read_bytes() and SECRET not in entrypoint
        if isinstance(self.ends, RuntimeError):
            raise self.ends
        return "job7"

    async def tail_job_logs(self, job):
        how_much, error = self.lost[0] if self.lost else (len(self.prints), None)
        for text in self.prints[:how_much]:
            yield text
        if error:
            self.lost.pop(0)
            raise error

    def get_job_info(self, job):
        if self.lost:
            self.lost.pop(0)
            return SimpleNamespace(status="RUNNING", message="")
        if isinstance(self.ends, BaseException):
            raise self.ends
        return SimpleNamespace(status=self.ends, message="python: not found")


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@host")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(module, "default_remote", lambda: None)
    monkeypatch.setattr(follow, "PAUSE", 0)

    def run(cluster: Cluster) -> str:
        monkeypatch.setattr(module, "_client", lambda address: cluster)
        try:
            return submit("sweep", "http://127.0.0.1:8265")
        finally:
            assert not any(package.exists() for package in cluster.packages)

    return run


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ("FAILED", "job7 ended as FAILED: python: not found"),
        ("STOPPED", "job7 ended as STOPPED"),
        (
            ConnectionError("the head is gone"),
            "the head is gone; unless it ended too, job",
        ),
        (RuntimeError("no room"), "Ray at http://127.0.0.1:8265: RuntimeError: no room"),
        (KeyboardInterrupt(), "`ray job stop job7 --address http://127.0.0.1:8265` ends it"),
    ],
    ids=["failed", "stopped", "head gone", "refused", "ctrl-c"],
)
def test_a_job_leaves_no_package_however_it_ends(run, ends, said):
    with pytest.raises(UserError, match=said):
        run(Cluster(ends))


@pytest.mark.parametrize(
    ("prints", "said"),
    [
        (["error: no such schedule\nERROR: failed to", " reproduce 'sweep'\n"], "no such schedule"),
        (["ERROR: unexpected error - no keys\n\n", "Having any troubles?\n"], "unexpected error"),
        (["Traceback\n", "ModuleNotFoundError: No module named 'dvc'\n"], "ModuleNotFoundError"),
        (
            [f"Running entrypoint for job7: {KEY}=a1b2= exec python\n"],
            f"Running .* {KEY}=\\.\\.\\. ex",
        ),
    ],
    ids=["stage", "DVC", "Python", "nothing"],
)
def test_a_failed_job_says_why_in_its_last_line(run, prints, said):
    with pytest.raises(UserError, match=f"^job job7 ended as FAILED: {said}"):
        run(Cluster("FAILED", prints))


def test_a_connection_that_is_lost_is_no_end_of_the_job(run, capsys):
    """What was shown is not shown again, and the key to the order never."""
    unmet = RuntimeError("WebSocket connection closed"), ClientError("no handshake"), OSError()
    lost = [(1, unmet[0]), (0, unmet[1]), (2, None), (3, unmet[2]), (3, None)]
    prints = [f"Running entrypoint: {KEY}=a1b2= exec python\n", "one\ntw", "o\n", "three\n"]
    assert run(Cluster("SUCCEEDED", prints, lost)) == "job job7 has finished; its results are here"
    shown = capsys.readouterr().out.partition("\n")[2]
    assert shown == f"Running entrypoint: {KEY}=... exec python\none\ntwo\nthree\n"


def test_a_connection_that_is_lost_once_an_hour_is_found_again_each_time(run):
    prints = [f"hour {hour}\n" for hour in range(3 * follow.TRIES)]
    lost = [(hour, OSError("a tunnel")) for hour in range(1, len(prints))]
    assert "has finished" in run(Cluster("SUCCEEDED", prints, lost))


def test_a_reader_that_leaves_is_no_connection_that_was_lost(run, monkeypatch):
    monkeypatch.setattr("sys.stdout", Closed())
    with pytest.raises(BrokenPipeError):
        run(Cluster("SUCCEEDED", ["one\n"]))


class Closed(io.StringIO):
    """A pipe whose reader leaves when the job's own lines begin."""

    def write(self, text):
        if text.startswith("one"):
            raise BrokenPipeError
        return len(text)


@pytest.mark.parametrize("set_here", [(), *[(name,) for name in module.PREFERRED]])
def test_the_way_out_leads_to_the_cluster_that_was_named(run, monkeypatch, set_here):
    for name in module.PREFERRED:
        monkeypatch.delenv(name, raising=False)
    for name in set_here:
        monkeypatch.setenv(name, "http://elsewhere:8265")
    without = "".join(f"-u {name} " for name in set_here)
    ray = f"env {without}ray" if set_here else "ray"
    with pytest.raises(UserError, match=f"`{ray} job stop job7 --address http://127.0.0.1:8265`"):
        run(Cluster(KeyboardInterrupt()))


def test_one_that_stays_lost_is_a_line_and_the_job_goes_on(run):
    lost = [(0, RuntimeError("WebSocket connection closed"))] * follow.TRIES
    with pytest.raises(UserError, match="connection closed; unless it ended too, job job7"):
        run(Cluster("SUCCEEDED", lost=lost))


@pytest.mark.parametrize("name", module.PREFERRED)
def test_the_cluster_is_the_one_that_was_named(name, monkeypatch):
    """Ray's own client would talk to another, and tell it the passwords."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(name, "http://elsewhere:8265")
    monkeypatch.setattr(module, "why_unreachable", lambda host, port: None)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.setattr(
        JobSubmissionClient, "_check_connection_and_version", lambda self, **version: None
    )
    assert module._client("http://named:8265")._address == "http://named:8265"
    assert os.environ[name] == "http://elsewhere:8265"


def test_the_job_opens_what_the_client_sealed(run, monkeypatch, tmp_path):
    cluster = Cluster("SUCCEEDED")
    assert run(cluster) == "job job7 has finished; its results are here"
    (tmp_path / FILE).write_bytes(cluster.sealed)
    monkeypatch.setenv(KEY, cluster.command.partition(f"{KEY}=")[2].split()[0])
    order = Order.opened(tmp_path)
    assert order.stage == "sweep" and order.remote is None
    assert order.environment["MLFLOW_TRACKING_URI"] == f"http://me:{SECRET}@host"
    with pytest.raises(UserError, match="by hand"):  # the key is of one use
        Order.opened(tmp_path)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("silent", "did not answer in 1 s; start a head with"),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno", "RAY_AUTH_TOKEN or in"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", "500 Server Error"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "ray_version.*; start a head with"),
        (b"SSH-2.0\r\n", "start a head with"),
    ],
    ids=["silent", "no token", "error", "not Ray", "not HTTP"],
)
def test_whatever_answers_in_the_place_of_a_head_is_one_line(answer, said, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)  # Ray asks for one, and a machine may have none
    monkeypatch.setattr(module, "CONNECT", 1.0 if answer == "silent" else 60.0)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):  # the test is over
                while True:
                    connection, _ = server.accept()
                    with connection:
                        if connection.recv(65536):  # not of who only looks for an open port
                            connection.sendall(answer)

        if answer != "silent":
            Thread(target=serve, daemon=True).start()
        with pytest.raises(UserError, match=said):
            submit("sweep", f"http://127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("address", ["head:8265", "http://head:port", "http://[head", "http://:1"])
def test_what_is_no_address_is_one_line(address, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match="is no address of a dashboard, as http://host:8265"):
        submit(None, address)


def test_what_is_no_stage_is_one_line(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match="no stage 'swep'; its stages are schedules, prepare"):
        submit("swep", "http://127.0.0.1:8265")
