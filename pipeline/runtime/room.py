"""What the Ray cluster that was joined has room for."""

import os
from collections.abc import Mapping

from pipeline.runtime.cluster import cluster_address
from pipeline.runtime.errors import UserError

# Set to 1 where an autoscaler may bring nodes (deploy/raycluster.yaml): no public API of Ray says.
AUTOSCALING = "MASKGIT_AUTOSCALING"
NODES = 1800.0  # seconds that a training waits for nodes, each of four times


def require_resources(workers: int, cpus_per_worker: int, use_gpu: bool, key: str) -> None:
    """Check, before any work, that the cluster can hold the workers. Where an autoscaler may bring
    nodes, print that the workers wait for them.

    Args:
        key: the param that sets the number of workers, for the error.

    Raises:
        UserError: the cluster can never hold the workers.
    """
    import ray

    have, each = ray.cluster_resources(), {"CPU": cpus_per_worker, "GPU": int(use_gpu)}
    short = [kind for kind, need in each.items() if workers * need > have.get(kind, 0)]
    if short:
        kind = short[0]
        found = f"the Ray cluster has {have.get(kind, 0):g}"
        lacking = f"{workers} workers need {workers * each[kind]} {kind}s and {found}"
    elif (room := room_for(each)) < workers:
        size = f"{cpus_per_worker} CPUs{' and a GPU' if use_gpu else ''} each"
        lacking = (
            f"{workers} workers of {size}, and the nodes of the Ray cluster have room for {room}"
        )
    else:
        return
    if may_grow():
        print(f"{key}: {lacking}; they wait for nodes of its autoscaler", flush=True)
        return
    if short == ["GPU"] and not have.get("GPU"):
        key, lacking = "ray.use_gpu", "the Ray cluster has no GPU"
        raise UserError(key, lacking, "set it to false, or join a cluster with GPUs by RAY_ADDRESS")
    raise UserError(key, lacking, "lower it, or join a larger cluster by RAY_ADDRESS")


def room_for(each: Mapping[str, float]) -> int:
    """How many workers with such resources the cluster holds at once, each of them on one node."""
    import ray

    return sum(
        min(int(node["Resources"].get(kind, 0) // need) for kind, need in each.items() if need)
        for node in ray.nodes()
        if node["Alive"]
    )


def may_grow() -> bool:
    """Whether an autoscaler may bring more nodes to the cluster that this stage has joined."""
    return bool(cluster_address()) and os.environ.get(AUTOSCALING) == "1"


def wait_for_nodes() -> None:
    """Let workers that Ray Train starts wait for the nodes that an autoscaler may bring."""
    if may_grow():
        wait_longer(NODES)


def wait_longer(seconds: float) -> None:
    """Let Ray Train wait for its workers longer than the minute after which it tries again, three
    times."""
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(seconds))
