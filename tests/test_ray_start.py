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

LISTENING = """
import json
import psutil
from pipeline.runtime.cluster import join_ray
join_ray()
me = psutil.Process()
listening = [
    [process.name(), connection.laddr.ip]
    for process in [me, *me.children(recursive=True)]
    for connection in process.net_connections()
    if connection.status == psutil.CONN_LISTEN
]
print(json.dumps(listening))
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


def run(code: str, python: Path | str = sys.executable, cwd: Path = ROOT) -> str:
    """The last line that a process prints that runs the code."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
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


TOKEN = """
import os
from pipeline.runtime.cluster import join_ray
join_ray()
print(os.environ["RAY_AUTH_MODE"])
"""


def test_a_local_cluster_asks_for_a_token():
    assert run(TOKEN) == "token"


def test_a_local_cluster_listens_on_loopback_alone():
    listening = json.loads(run(LISTENING))
    assert {"raylet", "gcs_server"} <= {name for name, _ in listening}
    addresses = {ip.removeprefix("::ffff:") for _, ip in listening}
    assert addresses <= {"127.0.0.1", "::1"}


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
