"""A local cluster whose servers are ended ends the process that has started it, in one line."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from pipeline.runtime.cluster import join_ray
from pipeline.runtime.errors import UserError
from pipeline.runtime.local_cluster import SERVERS, private_folder
from stages.running import INTERRUPTED
from tests.project import ROOT

# Servers that are none, of which one is ended while the process works.
WORK = """
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
import psutil
folder, ended, joined = sys.argv[1:]
sys.modules["ray"] = SimpleNamespace(is_initialized=lambda: joined != "left")
from pipeline.runtime import local_cluster
servers = {n: subprocess.Popen([f"{folder}/{n}", "60"]) for n in local_cluster.SERVERS}
for name, server in servers.items():
    while psutil.Process(server.pid).name() != name:  # which it has a moment after it was started
        time.sleep(0.01)
if joined == "unheard":
    kill, unheard = os.kill, [signal.SIGUSR2]
    os.kill = lambda pid, n: unheard.pop() if n in unheard else kill(pid, n)
print(*(server.pid for server in servers.values()), flush=True)
local_cluster.end_with_it()
print("works", flush=True)
try:
    servers[ended].kill()
    time.sleep(1 if joined == "left" else 30)
except KeyboardInterrupt:
    local_cluster.leave_if_ended()
local_cluster.leave_if_ended()
print("goes on", flush=True)
for server in servers.values():
    server.kill()
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody looks")


@pytest.mark.parametrize("named", ["", "elsewhere"])
def test_a_disk_without_room_for_rays_folder_is_named(named, monkeypatch, tmp_path):
    folder = str(tmp_path / named) if named else f"/tmp/ray-{os.getuid()}"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", folder if named else "")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    said = (
        f"{folder}: its disk has no room for Ray's sockets and logs; make room, or let RAY_TMPDIR"
    )
    with pytest.raises(UserError, match=f"^{re.escape(said)} name a folder on another$"):
        join_ray()


def test_ray_that_starts_late_is_no_bug(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def late(**_):
        raise Exception("The current node timed out during startup.\nRead the logs.")  # Ray's own

    monkeypatch.setattr("ray.init", late)
    with pytest.raises(
        UserError, match=r"^cannot start Ray: .* startup.; run again, when the mach"
    ):
        join_ray()


@pytest.mark.parametrize("named", ["", " "])
def test_a_folder_of_rays_that_is_named_empty_is_none(named, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", named)
    assert private_folder() == f"/tmp/ray-{os.getuid()}/ray"
    assert "RAY_TMPDIR" not in os.environ


def test_a_folder_that_cannot_be_rays_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", f" {tmp_path}/a/b ")
    assert private_folder() is None
    assert os.environ["RAY_TMPDIR"] == f"{tmp_path}/a/b"  # what Ray reads
    for named in ("relative/folder", "/dev/null", "/dev/null/below"):
        monkeypatch.setenv("RAY_TMPDIR", named)
        with pytest.raises(UserError, match=f"^RAY_TMPDIR: '{named}' cannot .* or unset it$"):
            private_folder()


@pytest.fixture
def work(tmp_path):
    for name in SERVERS:
        shutil.copy2(shutil.which("sleep"), tmp_path / name)

    def run(ended: str, joined: str, ignore: signal.Signals | None = None):
        return subprocess.run(
            (sys.executable, "-c", WORK, tmp_path, ended, joined),
            cwd=ROOT,
            preexec_fn=ignore and (lambda: signal.signal(ignore, signal.SIG_IGN)),
            capture_output=True,
            text=True,
            timeout=25,
            check=False,
        )

    return run


@pytest.mark.parametrize("ignore", [None, signal.SIGINT], ids=["", "in_the_background"])
@pytest.mark.parametrize("ended", SERVERS)
def test_the_end_of_a_server_is_one_line_and_leaves_nothing_behind(work, ended, ignore):
    result = work(ended, "joined", ignore)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: Ray's {ended} was ended, ")
    assert result.stderr.endswith("; what is finished is kept, run again to go on\n")
    pids, *lines = result.stdout.splitlines()
    assert lines == ["works"]
    deadline = time.monotonic() + 10
    while any(map(lives, pids.split())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(lives, pids.split()))


def test_a_signal_that_nobody_heard_is_sent_again(work):
    result = work("raylet", "unheard")
    assert result.returncode == 1
    assert result.stderr.startswith("error: Ray's raylet was ended, ")


def lives(pid: str) -> bool:
    try:
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_servers_that_ray_ends_itself_are_no_error(work):
    result = work("gcs_server", "left")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1:] == ["works", "goes on"]


REAL = """
import sys
import time
import psutil
import ray
from pipeline.runtime.cluster import join_ray
from pipeline.runtime.local_cluster import leave_if_ended
join_ray()
work = ray.remote(lambda: time.sleep(60)).remote()
next(child for child in psutil.Process().children() if child.name() == sys.argv[1]).kill()
try:
    ray.get(work)
except KeyboardInterrupt:
    leave_if_ended()
"""


@pytest.mark.slow
@pytest.mark.parametrize("ended", SERVERS)
def test_so_it_is_with_rays_own(ended):
    """Which it would wait a minute for."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    result = subprocess.run(
        (sys.executable, "-c", REAL, ended),
        cwd=ROOT,
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
    )
    assert result.returncode == 1 and "traceback" not in (result.stdout + result.stderr).lower()
    assert result.stderr.splitlines()[-1].startswith(f"error: Ray's {ended} was ended, ")


TOLD = """
import os
import signal
import sys
import threading
from types import SimpleNamespace
from pipeline.runtime.cluster import join_ray
from stages import running

def tell():
    print("told", flush=True)
    os.killpg(0, signal.SIGTERM) if sys.argv[1] == "all" else os.kill(os.getpid(), signal.SIGTERM)

def work(params):
    import ray
    join_ray()
    waiting = ray.remote(lambda: __import__("time").sleep(60)).remote()
    threading.Timer(2, tell).start()
    ray.get(waiting)

running.load_params = lambda: SimpleNamespace()
running.load_ahead = lambda: None
running.run_stage(work, curves=lambda params: ())
"""


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["all", "the stage"])
def test_a_stage_that_a_scheduler_ends_says_so_in_a_line(whom):
    """A scheduler tells all processes of a job, Ray's servers too; others tell the stage alone."""
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
    line = "error: interrupted; run again to go on from the last checkpoint\n"
    assert (process.returncode, printed, said) == (1, "", line)
    assert time.monotonic() - told < 9  # schedulers kill after ten seconds, and more


DEAF = """
import ctypes
from pipeline.runtime import local_cluster
from stages import running

def work():
    print("works", flush=True)
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):  # for ever; no handler of Python's runs meanwhile
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

local_cluster.GRACE = 1.0
running.load_params = work
running.run_stage(lambda params: "")
"""


def test_a_stage_that_hears_no_signal_ends_all_the_same():
    """As while Ray waits for a server that was ended as it started."""
    process = subprocess.Popen(
        (sys.executable, "-c", DEAF),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "works\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (1, f"{INTERRUPTED}\n")
