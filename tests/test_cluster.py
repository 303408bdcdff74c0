"""Which of a cluster's nodes see the project, and have its code."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from pipeline.runtime import cluster as module
from pipeline.runtime.cluster import _look, _sees
from pipeline.runtime.errors import UserError
from pipeline.runtime.home import OWN_COPY, own_mark
from tests.project import ROOT

NODE = {"NodeManagerHostname": "far"}
NO_PYTHON = """
from types import SimpleNamespace
from pipeline.runtime import cluster
cluster.WORKER_START = 15.0
cluster.sys = SimpleNamespace(executable="/no such/python", platform="linux")
try:
    cluster.join_ray()
except cluster.UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_worker_that_cannot_start_is_one_line():
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    result = subprocess.run(
        (sys.executable, "-c", NO_PYTHON),
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    line = result.stdout.splitlines()[-1]
    assert line.startswith(
        f"Ray cannot start a worker on {platform.node()}: none was there after 15 s; its logs are"
    )
    assert any(Path(line.split("its logs are in ")[1]).iterdir())


def test_a_node_that_sees_no_project_is_of_use_if_it_has_the_code(monkeypatch):
    monkeypatch.setattr(ray, "get", lambda looked, timeout: looked)
    assert _sees((True, "other code"), NODE)
    assert not _sees(_look(Path("/nowhere")), NODE)
    with pytest.raises(
        UserError, match="Ray's node far sees neither this project nor has its code"
    ):
        _sees((False, "other code"), NODE)


def test_a_node_that_was_lost_meanwhile_is_no_error(monkeypatch):
    def get(looked, timeout):
        raise ray.exceptions.TaskUnschedulableError("the node doesn't exist any more")

    monkeypatch.setattr(ray, "get", get)
    assert _sees(None, NODE)


@pytest.mark.parametrize(
    ("apart", "own_copy", "at_home"),
    [([], False, False), (["far"], False, True), ([], True, True)],
    ids=["all see it", "one does not", "none that comes later will"],
)
def test_who_gives_files_out_is_seen_by_nodes_until_it_ends(
    tmp_path, monkeypatch, apart, own_copy, at_home
):
    """A job has made its folder itself, so that nodes that an autoscaler brings do not see it."""
    monkeypatch.chdir(tmp_path)
    if own_copy:
        monkeypatch.setenv(OWN_COPY, "1")
    marks, atexit = [], []
    monkeypatch.setattr(module, "_nodes_apart", lambda seen: seen.touch() or apart)
    monkeypatch.setattr(module, "be_home", marks.append)
    monkeypatch.setattr("atexit.register", lambda *call, **options: atexit.append((call, options)))
    here = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: here)
    module._require_workers()
    assert bool(marks) == at_home and [mark.exists() for mark in marks] == [True] * at_home
    for (call, *arguments), options in atexit:
        call(*arguments, **options)
    assert os.listdir() == []


def test_what_killed_processes_showed_to_nodes_is_swept(tmp_path, monkeypatch):
    """And not what another shows, here or on another machine."""
    monkeypatch.chdir(tmp_path)
    ended = subprocess.Popen("true")
    ended.wait()
    here = f".seen-{platform.node()}-"
    kept = {f"{here}{os.getppid()}", ".seen-elsewhere-1", f"{here}x"}
    for name in kept | {f"{here}{ended.pid}"}:
        Path(name).touch()
    assert own_mark(tmp_path) == tmp_path / f"{here}{os.getpid()}"
    assert set(os.listdir()) == kept
