"""How Ray starts: for this machine alone, from any folder, and never without an end."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

pytestmark = pytest.mark.slow

# Of each port: its process, its address, and what a stranger is told who has no token.
LISTENING = """
import json
import time
import grpc
import psutil
import requests
from pipeline.runtime.cluster import join_ray

CALLS = (
    "InternalKVGcsService/InternalKVGet", "NodeManagerService/GetNodeStats",
    "CoreWorkerService/PushTask", "ObjectManagerService/Pull", "ReporterService/GetTraceback",
)
PAGES = ("api/job_agent/jobs/", "get_or_create_runtime_env")

def call(port, name):
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(f"/ray.rpc.{name}")(b"", timeout=3)
            return "OK"
        except grpc.RpcError as error:
            return error.code().name

def ask(method, port, page):
    try:
        return web.request(method, f"http://127.0.0.1:{port}/{page}", timeout=3).status_code
    except requests.RequestException:
        return None

web = requests.Session()
web.trust_env = False
join_ray()
me = psutil.Process()
ports, began = [], time.monotonic()
since = began
while time.monotonic() - since < 5 and time.monotonic() - began < 60:  # some open theirs late
    now = [
        (process.name(), connection.laddr)
        for process in [me, *me.children(recursive=True)]
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    if len(now) != len(ports):
        since = time.monotonic()
    ports = now
    time.sleep(0.2)
print(json.dumps([
    [name, at.ip, [call(at.port, name) for name in CALLS], ask("GET", at.port, ""),
     [ask("POST", at.port, page) for page in PAGES]]
    for name, at in ports
]))
"""
# What a worker is told. Without, Gloo listens on the address that the machine's name stands for.
GLOO = """
import json
import os
import ray
from pipeline.runtime.cluster import join_ray
join_ray()
print(json.dumps(ray.get(ray.remote(lambda: os.environ.get("GLOO_SOCKET_IFNAME")).remote())))
"""
FOLDER = """
import ray
from pipeline.runtime.cluster import join_ray
join_ray()
print(ray.get_runtime_context().get_temp_dir())
"""
NO_PYTHON = """
from types import SimpleNamespace
from pipeline.runtime import cluster
cluster.WORKER_START = 15.0
cluster.sys = SimpleNamespace(executable="/no such/python")
try:
    cluster.join_ray()
except cluster.UserError as error:
    print(error)
"""
EXECUTABLE = """
import sys
import ray
from pipeline.runtime.cluster import join_ray
join_ray()
print(ray.get(ray.remote(lambda: sys.executable).remote()))
"""


def run(code: str, python: Path | str = sys.executable, cwd: Path = ROOT, **given: str) -> str:
    """The last line that a process prints that runs the code.

    Args:
        given: variables of its environment.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | given
    result = subprocess.run(
        (python, "-c", code),
        cwd=cwd,
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "traceback" not in (result.stdout + result.stderr).lower()
    return result.stdout.splitlines()[-1]


@pytest.fixture(scope="module", params=["", "local"])
def listening(request) -> list[tuple[str, str, list[str], int | None, list[int | None]]]:
    return json.loads(run(LISTENING, RAY_ADDRESS=request.param))


def test_a_local_cluster_listens_on_loopback_alone(listening):
    assert {"raylet", "gcs_server"} <= {name for name, *_ in listening}
    addresses = {ip.removeprefix("::ffff:") for _, ip, *_ in listening}
    assert addresses <= {"127.0.0.1", "::1"}


def test_without_its_token_a_local_cluster_does_nothing(listening):
    """But show its metrics, on three ports, as `SECURITY.md` says."""
    asking = {name for name, _, called, *_ in listening if "UNAUTHENTICATED" in called}
    assert asking > {"gcs_server", "raylet", "ray::DashboardAgent"}  # and workers, the driver
    assert all("OK" not in called for _, _, called, *_ in listening)
    assert [got for *_, got, _ in listening].count(200) <= 3
    # Where another cluster of this machine has port 52365, the dashboard's agent has no pages.
    refusing = {name for name, *_, posted in listening if 401 in posted}
    assert {"ray::RuntimeEnvAgent"} <= refusing <= {"ray::RuntimeEnvAgent", "ray::DashboardAgent"}
    assert all(status != 200 for *_, got, posted in listening if got != 200 for status in posted)


def test_gloo_is_told_of_loopback_unless_a_user_names_an_interface():
    assert json.loads(run(GLOO)) == ("lo" if sys.platform == "linux" else "lo0")
    assert json.loads(run(GLOO, GLOO_SOCKET_IFNAME="eth0")) == "eth0"


def test_its_sockets_and_token_are_for_its_user_alone():
    for folder in (Path(run(FOLDER)).parent, Path.home() / ".ray"):
        status = folder.stat()
        assert status.st_mode & 0o077 == 0 and status.st_uid == os.getuid()


def test_workers_start_from_an_environment_whose_path_has_a_space(tmp_path):
    folder = tmp_path / "a b é"
    folder.mkdir()
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    python = folder / ".venv/bin/python"
    assert run(EXECUTABLE, python, cwd=folder) == str(python)


def test_a_worker_that_cannot_start_is_one_line():
    line = run(NO_PYTHON)
    here = platform.node()
    assert line.startswith(
        f"Ray cannot start a worker on {here}: none was there after 15 s; its logs are in /"
    )
    assert any(Path(line.split("its logs are in ")[1]).iterdir())
