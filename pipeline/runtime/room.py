"""What the Ray cluster that was joined has room for."""

import json
import os
import time
from collections.abc import Mapping

from pipeline.runtime.cluster import cluster_address
from pipeline.runtime.errors import UserError

NODES = 1800.0  # seconds that a training waits for nodes, each of four times
REPORT = 15.0  # seconds within which the first report of an autoscaler is there


def require_resources(workers: int, cpus_per_worker: int, use_gpu: bool, key: str) -> None:
    """Raise a `UserError`, before any work, if the cluster can never hold the workers. Nodes that
    an autoscaler may bring count: the workers wait for them, and a line says so.

    Args:
        key: the param that sets their number, for the error.
    """
    import ray

    have, each = ray.cluster_resources(), {"CPU": cpus_per_worker, "GPU": int(use_gpu)}
    short = [kind for kind, need in each.items() if workers * need > have.get(kind, 0)]
    if short:
        kind = short[0]
        lacking = (
            f"{key}: {workers} workers need {workers * each[kind]} {kind}s and the Ray cluster has "
            f"{have.get(kind, 0):g}"
        )
    elif (room := room_for(each)) < workers:
        gpu = " and a GPU" if use_gpu else ""
        lacking = (
            f"{key}: {workers} workers of {cpus_per_worker} CPUs{gpu} each, and the nodes of the "
            f"Ray cluster have room for {room}"
        )
    else:
        return
    if may_grow():
        print(f"{lacking}; they wait for nodes of its autoscaler", flush=True)
        return
    if short == ["GPU"] and not have.get("GPU"):
        raise UserError(
            "ray.use_gpu: the Ray cluster has no GPU; set it to false, or join a cluster that has "
            "one with RAY_ADDRESS"
        )
    raise UserError(f"{lacking}; lower it, or join a larger cluster with RAY_ADDRESS")


def room_for(each: Mapping[str, float]) -> int:
    """How many workers with such resources the cluster holds at once, each of them on one node."""
    import ray

    return sum(
        min(int(node["Resources"].get(kind, 0) // need) for kind, need in each.items() if need)
        for node in ray.nodes()
        if node["Alive"]
    )


def may_grow() -> bool:
    """Whether an autoscaler may bring more nodes to the cluster that this stage has joined: for the
    stage's own process to ask, since Ray's workers do not know whose cluster theirs is.

    An autoscaler knows nodes by named types, of which it may start some; without one Ray calls each
    node after its id. Its first version reports to Ray's key-value store, some seconds after the
    cluster starts; its second with the status of the cluster. How many nodes may come, neither
    says. Under KubeRay, which names all types, the second seems to be an autoscaler where there is
    none: deploy/rayjob.yaml takes the first.
    """
    if not cluster_address():  # a stage's own
        return False
    import ray
    from ray.autoscaler.v2 import sdk, utils

    if utils.is_autoscaler_v2(fetch_from_server=True):
        status = sdk.get_cluster_status(ray.get_runtime_context().gcs_address)
        types = {node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)}
    else:
        types = _reported_types()
    unnamed = {f"node_{node['NodeID']}" for node in ray.nodes()}
    return bool(types - unnamed - {""})


def _reported_types() -> set[str]:
    """Of the nodes that are there, as the autoscaler's first version reports them; none where it
    does not."""
    from ray.experimental.internal_kv import _internal_kv_get

    until = time.monotonic() + REPORT
    while time.monotonic() < until:
        report = json.loads(_internal_kv_get("__autoscaling_status") or "{}")
        if "autoscaler_report" in report:
            return set((report["autoscaler_report"] or {}).get("active_nodes") or ())
        time.sleep(0.5)
    return set()


def wait_for_nodes() -> None:
    """Let workers that Ray Train starts wait for the nodes that an autoscaler may bring."""
    if may_grow():
        wait_longer(NODES)


def wait_longer(seconds: float) -> None:
    """Let Ray Train wait for its workers longer than the minute after which it tries again, three
    times."""
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(seconds))
