"""What a cluster has to hold and to see; nodes that can still come count."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray import tune
from ray.autoscaler.v2 import sdk, utils
from ray.experimental import internal_kv

from pipeline.runtime import cluster as module
from pipeline.runtime import trials as trials_module
from pipeline.runtime.cluster import _look, _sees, require_readable
from pipeline.runtime.errors import UserError
from pipeline.runtime.home import OWN_COPY, own_mark
from pipeline.runtime.room import may_grow, require_resources, wait_for_nodes
from pipeline.runtime.trials import Needs, _tuner

HEAD = "ffff0000"
UNNAMED = f"node_{HEAD}"


@pytest.fixture
def cluster(monkeypatch):
    """A head with a CPU, as Ray 2.60 was seen to describe one: its node's type to the autoscaler's
    first version, None where the second runs, and to the second."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")

    def make(first: str | None, second: str, *others: dict[str, float]) -> None:
        nodes = [SimpleNamespace(ray_node_type_name=second)]
        status = SimpleNamespace(active_nodes=[], idle_nodes=nodes)
        report = {"autoscaler_report": {"active_nodes": {first: 1}}}
        reports = iter([b"", b'{"load_metrics_report": null}'])  # as of a cluster that is young
        context = SimpleNamespace(gcs_address="127.0.0.1:6379")
        have = [{"CPU": 1.0}, *others]
        each = [{"NodeID": HEAD, "Alive": True, "Resources": one} for one in have]
        total = {kind: sum(one.get(kind, 0) for one in have) for one in have for kind in one}
        monkeypatch.setattr(ray, "cluster_resources", lambda: total)
        monkeypatch.setattr(ray, "nodes", lambda: [*each, each[0] | {"Alive": False}])
        monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
        monkeypatch.setattr(sdk, "get_cluster_status", lambda address: status)
        monkeypatch.setattr(
            internal_kv, "_internal_kv_get", lambda key: next(reports, json.dumps(report).encode())
        )
        monkeypatch.setattr(utils, "is_autoscaler_v2", lambda fetch_from_server: first is None)

    return make


NONE = [(UNNAMED, UNNAMED), (None, UNNAMED), (None, ""), (UNNAMED, "headgroup")]  # KubeRay's
GROWING = [("ray.head.default", UNNAMED), (None, "gpu-group")]


@pytest.mark.parametrize(("names", "waits"), [(NONE[0], False), (GROWING[0], True)])
def test_data_parallel_workers_wait_for_nodes_that_may_come(cluster, monkeypatch, names, waits):
    """Longer than Ray Train does, to whose processes the time is handed on."""
    from ray.train.v2._internal.constants import get_env_vars_to_propagate

    key = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
    monkeypatch.setenv(key, "")
    monkeypatch.delenv(key)
    cluster(*names)
    wait_for_nodes()
    assert (float(get_env_vars_to_propagate().get(key, 60)) > 600) == waits


@pytest.mark.parametrize(("first", "second"), NONE)
def test_workers_for_which_no_node_can_come_are_refused(cluster, first, second):
    cluster(first, second)
    assert not may_grow()
    require_resources(1, 1, False, "ray.num_workers")
    with pytest.raises(UserError, match="2 workers need 4 CPUs and the Ray cluster has 1; lower"):
        require_resources(2, 2, False, "ray.num_workers")


def test_no_autoscaler_is_asked_of_a_cluster_that_a_stage_starts(cluster, monkeypatch):
    cluster(*GROWING[0])
    monkeypatch.delenv("RAY_ADDRESS")
    assert not may_grow()


def test_a_cluster_that_reports_nothing_does_not_grow(cluster, monkeypatch):
    cluster(*GROWING[0])
    monkeypatch.setattr(internal_kv, "_internal_kv_get", lambda key: None)
    monkeypatch.setattr("pipeline.runtime.room.REPORT", 0.1)
    assert not may_grow()


def test_workers_that_the_nodes_have_no_room_for_are_refused(cluster):
    """All processors together would do, and no worker has those of two nodes."""
    cluster(*NONE[0], {"CPU": 8.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 4.0})
    require_resources(4, 4, True, "ray.num_workers")
    require_resources(2, 8, False, "ray.num_workers")
    with pytest.raises(UserError, match=r"3 workers of 5 CPUs each, and .* have room for 2"):
        require_resources(3, 5, False, "ray.num_workers")
    with pytest.raises(UserError, match=r"5 workers of 3 CPUs and a GPU each, .* room for 4"):
        require_resources(5, 3, True, "ray.num_workers")


def test_a_cluster_without_a_gpu_is_refused_by_the_param_that_asks_for_one(cluster):
    cluster(*NONE[0])
    with pytest.raises(UserError, match=r"^ray\.use_gpu: the Ray cluster has no GPU; set it to"):
        require_resources(1, 1, True, "sweep.workers_per_trial")


@pytest.mark.parametrize(("first", "second"), GROWING)
def test_workers_for_which_nodes_may_come_wait_and_say_so(cluster, capsys, first, second):
    cluster(first, second)
    require_resources(1, 1, False, "ray.num_workers")
    assert not capsys.readouterr().out
    require_resources(2, 2, True, "ray.num_workers")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("ray.num_workers: 2 workers need 4 CPUs") and "autoscaler" in line


@pytest.mark.parametrize(("workers", "waits"), [(1, False), (1, True), (4, True)])
@pytest.mark.parametrize(("names", "at_once"), [(NONE[0], 1), (GROWING[0], 8)])
def test_trials_ask_for_room_where_it_can_be_made(
    cluster, monkeypatch, tmp_path, workers, waits, names, at_once
):
    """And wait for it in their own processes, which do not know of the autoscaler."""
    cluster(*names)
    needs = Needs(workers, {"CPU": 2}, max_failures=0, folder=tmp_path, waits=waits)
    made = {}
    monkeypatch.setattr(tune, "with_resources", lambda function, resources: function)
    monkeypatch.setattr(tune, "Tuner", lambda function, **kw: made.update(kw, function=function))
    trials = [SimpleNamespace(name=str(number)) for number in range(8)]
    _tuner(print, trials, needs, tmp_path, SimpleNamespace())
    assert made["tune_config"].max_concurrent_trials == at_once
    waited = []
    monkeypatch.setattr(trials_module, "wait_longer", waited.append)
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(trials_module, "_call", lambda *given: {})
    monkeypatch.setattr(tune, "report", lambda result: None)
    made["function"]({"trial": "0"})
    assert bool(waited) == (waits and at_once == 8)


NODE = {"NodeManagerHostname": "far"}


def test_settings_that_ray_cannot_read_are_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "ray")
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.9")
    require_readable()
    monkeypatch.setenv("RAY_health_check_period_ms", "ten")
    with pytest.raises(UserError, match=r"^RAY_health_check_period_ms: Ray cannot read"):
        require_readable()


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
