"""Joining Ray: the cluster that RAY_ADDRESS names, or a local one that ends with the stage."""

import logging
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError
from pipeline.runtime.process import end_when_told

# Ray reads these when it is imported, here and in its workers.
_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in workers would lead elsewhere
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C would yield a partial grid without an error
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # four files a trial that nobody reads
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # each report would wait two seconds
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # prints of workers would go through a logger
    "RAY_DISABLE_WORKER_LOG_PREFIX": "1",  # "(trainable pid=123)"; our lines name their training
    "RAY_DEDUP_LOGS": "0",  # progress lines of different trials look alike
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # `uv run` would build an environment per worker
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the future default, which Ray warns of otherwise
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the other output prints tables at any verbosity
}
_LOCAL_ENVIRONMENT = {
    # Ray's switch for systems whose firewall asks about every open port: it listens on loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one's own machine is not preempted
    # Workers that start before they are asked for would not have the environment of workers.
    "RAY_prestart_worker_first_driver": "0",
    # An idle worker that Ray ends in the middle of a stage may abort and print a page.
    "RAY_idle_worker_killing_time_threshold_ms": str(2**31 - 1),
}
# A port where nothing listens: Ray Train asks the dashboard whether its controller lives, and the
# dashboard of another cluster on Ray's usual port would say no.
_NO_DASHBOARD = "http://127.0.0.1:9"

ANSWER = 5.0  # seconds that a port may take to answer
DISK = 2**25  # bytes that Ray's sockets and logs need at least


def join_ray() -> None:
    """Connect to RAY_ADDRESS (or to the job's cluster), else start a local cluster.

    Raises:
        UserError: Ray does not start, or cannot be reached.
    """
    address = cluster_address()
    os.environ |= _ENVIRONMENT if address else _ENVIRONMENT | _LOCAL_ENVIRONMENT
    # A failed trial or worker is an exception here, which Ray would also log by the page.
    logging.disable(logging.ERROR)
    import ray

    if ray.is_initialized():
        return
    if reason := why_no_cluster(address):
        raise _cannot_join(address, reason)
    options: dict[str, Any] = {"runtime_env": _workers_environment()}
    if not address:
        _prepare_local()
        options["runtime_env"]["env_vars"]["RAY_API_SERVER_ADDRESS"] = _NO_DASHBOARD
        # Starting the dashboard takes seconds of the workers' CPUs.
        options |= {"address": "local", "include_dashboard": False}
    try:
        ray.init(**options)
    except SystemExit as told:  # SIGTERM, for which Ray has set its own handler
        raise KeyboardInterrupt from told
    except Exception as error:
        raise _cannot_join(address, str(error).strip() or type(error).__name__) from error
    end_when_told()


def cluster_address() -> str:
    """The cluster that RAY_ADDRESS names; empty if a stage starts one of its own."""
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


def _prepare_local() -> None:
    """Create the folder of Ray's sockets and logs, to which Ray lets everyone write, and that of
    its token, for this user alone.

    Raises:
        UserError: a folder is another user's or cannot be written, or its disk is full.
    """
    os.environ.pop("RAY_ADDRESS", None)
    # By default Gloo listens on the address that the machine's name stands for.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    own = Path("/tmp") / f"ray-{os.getuid()}"  # short: the path of a socket has 107 bytes at most
    named = Path(os.environ.get("RAY_TMPDIR") or own)
    os.environ["RAY_TMPDIR"] = str(named)
    for folder in (Path.home() / ".ray", named):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder != named or named == own:
                folder.chmod(0o700)
        except OSError as error:
            reason = f"cannot be a folder of this user alone ({error.strerror})"
            way_out = "remove it, or set HOME and RAY_TMPDIR to folders of your own"
            raise UserError(str(folder), reason, way_out) from error
    if shutil.disk_usage(named).free < DISK:
        way_out = "free some space, or set RAY_TMPDIR to a folder on another disk"
        raise UserError(str(named), "its disk has no room for Ray's sockets and logs", way_out)


def _workers_environment() -> dict[str, Any]:
    """The runtime environment of workers, as Ray takes it."""
    # They import this project whatever their working directory.
    path = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))
    environment: dict[str, Any] = {
        "env_vars": {"PYTHONPATH": path} | _ENVIRONMENT,
        "worker_process_setup_hook": "pipeline.runtime.process.set_up_worker",
    }
    if shlex.quote(sys.executable) != sys.executable:
        # Ray gives it to a shell as it is, and retries for ever where that finds nothing.
        environment["py_executable"] = shlex.quote(sys.executable)
    return environment


def _cannot_join(address: str, reason: str) -> UserError:
    reason = reason.splitlines()[0]
    if address:
        way_out = "start a head with `ray start --head`, or unset RAY_ADDRESS"
        return UserError("RAY_ADDRESS", f"cannot join Ray at '{address}': {reason}", way_out)
    way_out = "run again when the machine is less busy" if "timed out" in reason else ""
    if "AF_UNIX path" in reason:
        way_out = "set RAY_TMPDIR to a folder with a shorter path"
    return UserError("Ray", f"cannot start: {reason}", way_out)


def why_no_cluster(address: str) -> str | None:
    """Why there can be no cluster at a RAY_ADDRESS, for which Ray would wait several minutes; None
    if Ray may be there."""
    if address in ("", "auto"):
        return None
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isascii() and port.isdigit()):
        return "it is not host:port"
    return why_unreachable(host, int(port)) or _why_not_grpc(f"{host}:{port}")


def _why_not_grpc(address: str) -> str | None:
    """Why the server at host:port, which does not speak gRPC, is not Ray; None if it does. With
    TLS there is no check."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return None
    import grpc

    channel = grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)])  # as Ray's own
    try:
        grpc.channel_ready_future(channel).result(timeout=ANSWER)
        return None
    except grpc.FutureTimeoutError:
        return "what answers is no Ray, whose port is 6379 (8265 is its dashboard's)"
    finally:
        channel.close()


def why_unreachable(host: str, port: int) -> str | None:
    """Why nothing answers on a port; None if something does. An IPv6 host may be in brackets."""
    try:
        socket.create_connection((host.strip("[]"), port), timeout=ANSWER).close()
    except OSError as error:
        return error.strerror or str(error)
    except (OverflowError, UnicodeError):  # a port above 65535, an impossible host name
        return "there is no such host or port"
    return None


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
