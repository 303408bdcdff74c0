"""Starting Ray, joining a Ray cluster, and the number of workers that fit into the cluster."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import ray

from pipeline.runtime import ray_cluster
from pipeline.runtime.errors import UserError
from stages.running import INTERRUPTED
from tests.errors import refused
from tests.project import ROOT

# A program that starts a local cluster and prints the process and the address of each port, and the
# port's answers to requests without a token.
LOCAL = """
import json, os, sys, time
import grpc, psutil, requests
from pipeline.runtime.ray_cluster import join_ray

CALLS = (
    "InternalKVGcsService/InternalKVGet", "NodeManagerService/GetNodeStats",
    "CoreWorkerService/PushTask", "ObjectManagerService/Pull", "ReporterService/GetTraceback",
)
PAGES = ("", "api/job_agent/jobs/", "get_or_create_runtime_env")

def call(port, name):
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(f"/ray.rpc.{name}")(b"", timeout=3)
            return "OK"
        except grpc.RpcError as error:
            return error.code().name

def ask(port, page):
    try:
        url = f"http://127.0.0.1:{port}/{page}"
        return web.request("POST" if page else "GET", url, timeout=3).status_code
    except requests.RequestException:
        return None

web = requests.Session()
web.trust_env = False
join_ray()
import ray  # not before: it then listens everywhere
worker = ray.get(ray.remote(lambda: [sys.executable, os.environ["GLOO_SOCKET_IFNAME"]]).remote())
ports, before = [], None
while before is None or len(ports) != len(before):  # some open theirs late
    time.sleep(5)
    before, ports = ports, [
        (process.name(), connection.laddr)
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
print(json.dumps({
    "temp": ray.get_runtime_context().get_temp_dir(),
    "worker": worker,
    "ports": [
        [name, at.ip, [call(at.port, name) for name in CALLS], [ask(at.port, p) for p in PAGES]]
        for name, at in ports
    ],
}))
"""


@pytest.mark.slow
def test_a_local_cluster_is_for_its_user_alone(tmp_path):
    """Ports are on loopback, and all but three metrics ports require the token (`SECURITY.md`). The
    path of Python has spaces, because Ray passes the path to a shell unquoted."""
    folder = tmp_path / "a b é"
    folder.mkdir()
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    python = folder / ".venv/bin/python"
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    result = subprocess.run(
        (python, "-c", LOCAL),
        cwd=folder,
        env=env | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    assert "traceback" not in (result.stdout + result.stderr).lower()
    local = json.loads(result.stdout.splitlines()[-1])
    ports = local["ports"]
    assert {"raylet", "gcs_server"} <= {name for name, *_ in ports}
    assert {ip.removeprefix("::ffff:") for _, ip, *_ in ports} <= {"127.0.0.1", "::1"}
    asking = {name for name, _, called, _ in ports if "UNAUTHENTICATED" in called}
    assert asking > {"gcs_server", "raylet", "ray::DashboardAgent"}  # also workers and driver
    assert all("OK" not in called for _, _, called, _ in ports)
    assert [got for *_, (got, *_) in ports].count(200) <= 3
    # If another cluster on this machine uses port 52365, the dashboard's agent serves no pages.
    refusing = {name for name, *_, (_, *posted) in ports if 401 in posted}
    assert {"ray::RuntimeEnvAgent"} <= refusing <= {"ray::RuntimeEnvAgent", "ray::DashboardAgent"}
    assert all(status != 200 for *_, (got, *posted) in ports if got != 200 for status in posted)
    for folder in (Path(local["temp"]).parent, Path.home() / ".ray"):
        status = folder.stat()
        assert status.st_mode & 0o077 == 0 and status.st_uid == os.getuid()
    assert local["worker"] == [str(python), "lo" if sys.platform == "linux" else "lo0"]


TOLD = """
import os, signal, sys, threading
from types import SimpleNamespace
from pipeline.runtime.ray_cluster import join_ray
from stages import running

running.stage_params = running.check_files = running._check_inputs = lambda *_: {}

def tell():
    print("told", flush=True)
    os.killpg(0, signal.SIGTERM) if sys.argv[1] == "all" else os.kill(os.getpid(), signal.SIGTERM)

def work(params):
    import ray
    join_ray()
    waiting = ray.remote(lambda: __import__("time").sleep(60)).remote()
    threading.Timer(2, tell).start()
    ray.get(waiting)

running.load_params = lambda: SimpleNamespace(model_dump=dict)
sys.modules["stages.sweep"] = SimpleNamespace(main=work)
running.run_stage("sweep")
"""


@pytest.mark.parametrize(
    "whom",
    [
        pytest.param("all", marks=pytest.mark.soak),
        pytest.param("the stage", marks=pytest.mark.slow),
    ],
)
def test_a_stage_that_a_scheduler_ends_prints_one_line(whom):
    """Some schedulers send SIGTERM to all processes of a job, others only to the stage. If Ray's
    servers end too, Ray's core may log that they are gone, before or after the line."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "DVC_"))}
    process = subprocess.Popen(
        (sys.executable, "-c", TOLD, whom),
        cwd=ROOT,
        env=env | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "told\n"
    told = time.monotonic()
    printed, said = process.communicate(timeout=45)
    lines = [line for line in said.splitlines() if whom != "all" or not line.startswith("[20")]
    assert (process.returncode, printed, lines) == (1, "", [INTERRUPTED])
    assert time.monotonic() - told < 25  # measured: 2 s for the stage alone, 9 s for all


def test_a_cluster_that_does_not_start_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "ray"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", Mock(side_effect=Exception("timed out during startup.\nRead")))
    with refused("Ray", way_out="less busy"):
        ray_cluster.join_ray()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with refused(tmp_path / "ray", match="No space left"):
        ray_cluster.join_ray()


def test_an_address_where_nothing_answers_is_told_at_once(monkeypatch):
    for address in ("head", "127.0.0.1:99999", "ray://head", "http://no such host:8265"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with refused("RAY_ADDRESS", way_out="unset", match="cannot join Ray at"):
            ray_cluster.join_ray()


def test_another_server_than_rays_is_told_within_seconds(monkeypatch):
    monkeypatch.setattr(ray_cluster, "ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "not a Ray" in ray_cluster.why_no_cluster(f"127.0.0.1:{silent.getsockname()[1]}")
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # like Ray's dashboard
    Thread(target=server.serve_forever, daemon=True).start()
    assert "8265" in ray_cluster.why_no_cluster(f"127.0.0.1:{server.server_port}")
    server.shutdown()


@pytest.fixture
def nodes(monkeypatch):
    """A function that makes Ray report a joined cluster whose nodes have the given resources."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.delenv(ray_cluster.AUTOSCALING, raising=False)

    def pretend(*have: dict[str, float]) -> None:
        alive = [{"Alive": True, "Resources": one} for one in have]
        kinds = {kind for one in have for kind in one}
        total = {kind: sum(one.get(kind, 0) for one in have) for kind in kinds}
        monkeypatch.setattr(ray, "cluster_resources", lambda: total)
        monkeypatch.setattr(ray, "nodes", lambda: [*alive, alive[0] | {"Alive": False}])

    return pretend


def test_workers_that_a_cluster_cannot_hold_are_refused(nodes):
    """Each worker needs one node: 3 workers of 5 CPUs do not fit on nodes of 1, 8 and 8 CPUs."""
    nodes({"CPU": 1}, {"CPU": 8, "GPU": 4}, {"CPU": 8, "GPU": 4})
    ray_cluster.require_resources(4, 4, True, "ray.num_workers")
    ray_cluster.require_resources(2, 8, False, "ray.num_workers")
    for workers, cpus, gpu, lacking in (
        (3, 5, False, "room for 2"),
        (5, 3, True, "room for 4"),
        (9, 2, False, "room for 8"),
    ):
        with refused("ray.num_workers", match=lacking):
            ray_cluster.require_resources(workers, cpus, gpu, "ray.num_workers")
    nodes({"CPU": 1})
    with refused("ray.use_gpu"):
        ray_cluster.require_resources(1, 1, True, "sweep.workers_per_trial")


def test_workers_wait_where_an_autoscaler_may_bring_nodes(nodes, monkeypatch, capsys):
    from ray.train.v2._internal.constants import get_env_vars_to_propagate

    key = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
    monkeypatch.setenv(key, "")
    monkeypatch.delenv(key)
    nodes({"CPU": 1})
    assert not ray_cluster.may_grow()
    monkeypatch.setenv(ray_cluster.AUTOSCALING, "1")
    ray_cluster.require_resources(1, 1, False, "ray.num_workers")
    assert not capsys.readouterr().out
    ray_cluster.require_resources(2, 2, True, "ray.num_workers")
    assert "autoscaler" in capsys.readouterr().out
    assert ray_cluster.may_grow()
    ray_cluster.wait_longer(ray_cluster.NODES)
    assert float(get_env_vars_to_propagate()[key]) == ray_cluster.NODES
    monkeypatch.delenv("RAY_ADDRESS")  # a local cluster has no autoscaler
    with pytest.raises(UserError):
        ray_cluster.require_resources(2, 2, False, "ray.num_workers")
