"""Connects to Ray: to the cluster that RAY_ADDRESS names, or to a local cluster."""

import errno
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
from pipeline.runtime.process import PRECISION, end_when_told

# Ray reads these at import, here and in workers. Each comment says what Ray does by default.
_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # run workers in other folders
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # end a partial grid without an error on Ctrl-C
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # write four unused files per trial
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # wait two seconds at each report
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # send workers' prints through a logger
    "RAY_DISABLE_WORKER_LOG_PREFIX": "1",  # prefix lines with "(trainable pid=123)"
    "RAY_DEDUP_LOGS": "0",  # drop similar lines of different trials
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # build an environment per worker under `uv run`
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # warn of a future default
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # print tables at any verbosity
}
_LOCAL_ENVIRONMENT = {
    # Makes Ray listen on loopback only, its default on Windows and macOS.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a local machine is not preempted
    # Ray would start some workers in advance, without the workers' environment.
    "RAY_prestart_worker_first_driver": "0",
    # Ray would stop idle workers during a stage, and some abort with a long message.
    "RAY_idle_worker_killing_time_threshold_ms": str(2**31 - 1),
}
# Set to 1 if an autoscaler may add nodes (deploy/raycluster.yaml): Ray has no public API for this.
AUTOSCALING = "MASKGIT_AUTOSCALING"
NODES = 1800.0  # seconds that each attempt to start training waits for nodes
ANSWER = 5.0  # seconds that a port may take to answer
DISK = 2**25  # bytes that Ray's sockets and logs need at least


def join_ray() -> None:
    """Connect to the cluster at RAY_ADDRESS (which Ray sets in jobs), else start a local cluster.
    Raises a `UserError` if Ray does not start or cannot be reached."""
    address = cluster_address()
    os.environ |= _ENVIRONMENT if address else _ENVIRONMENT | _LOCAL_ENVIRONMENT
    # A failed trial or worker raises an exception here; Ray would also log it at length.
    logging.disable(logging.ERROR)
    import ray

    if ray.is_initialized():
        return
    # Workers must find this project's modules from any folder.
    path = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))
    variables = {"PYTHONPATH": path} | _ENVIRONMENT
    variables |= {k: v for k, v in os.environ.items() if k == PRECISION}
    hook = "pipeline.runtime.process.set_up_worker"
    environment: dict[str, Any] = {"env_vars": variables, "worker_process_setup_hook": hook}
    if (quoted := shlex.quote(sys.executable)) != sys.executable:
        environment["py_executable"] = quoted  # Ray passes the path to a shell unquoted
    options: dict[str, Any] = {"runtime_env": environment}
    if not address:
        _prepare_local()
        # An unused port, so that Ray Train does not query the dashboard of another cluster.
        variables["RAY_API_SERVER_ADDRESS"] = "http://127.0.0.1:9"
        # Starting the dashboard takes seconds of the workers' CPUs.
        options |= {"address": "local", "include_dashboard": False}
    elif reason := why_no_cluster(address):
        raise _cannot_join(address, reason)
    try:
        ray.init(**options)
    except SystemExit as told:  # SIGTERM, for which Ray has set its own handler
        raise KeyboardInterrupt from told
    except Exception as error:
        raise _cannot_join(address, str(error).strip() or type(error).__name__) from error
    end_when_told()


def cluster_address() -> str:
    """The address in RAY_ADDRESS; empty if the stage starts a local cluster."""
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


def _prepare_local() -> None:
    """Create private folders for Ray's token, sockets and logs: Ray's default folders are writable
    by everyone. An existing RAY_TMPDIR keeps its permissions."""
    os.environ.pop("RAY_ADDRESS", None)
    # By default, Gloo listens on the address of the machine's host name.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    own = f"/tmp/ray-{os.getuid()}"  # short: the path of a socket has 107 bytes at most
    sockets, token = Path(os.environ.setdefault("RAY_TMPDIR", own)), Path.home() / ".ray"
    try:
        for folder in (token, sockets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder in (token, Path(own)):
                folder.chmod(0o700)
        if shutil.disk_usage(sockets).free < DISK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(sockets))
    except OSError as error:
        reason = f"cannot be used as Ray's private folder ({error.strerror})"
        way_out = "remove that folder or make room, or set HOME and RAY_TMPDIR to other folders"
        raise UserError(str(error.filename), reason, way_out) from error


def _cannot_join(address: str, reason: str) -> UserError:
    if address:
        way_out = "start a Ray head (docs/cluster.md), or unset RAY_ADDRESS"
        return UserError("RAY_ADDRESS", f"cannot join Ray at '{address}': {reason}", way_out)
    way_out = "run again when the machine is less busy, or set RAY_TMPDIR to a shorter path"
    return UserError("Ray", f"cannot start: {reason.splitlines()[0]}", way_out)


def why_no_cluster(address: str) -> str | None:
    """Why no Ray cluster answers at an address; None if one answers. Ray's own check is slow."""
    if address in ("", "auto"):
        return None
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isascii() and port.isdigit()):
        return "the address is not host:port"
    if (reason := why_unreachable(host, int(port))) or os.environ.get("RAY_USE_TLS", "0") != "0":
        return reason
    import grpc

    direct = [("grpc.enable_http_proxy", 0)]  # like Ray's own channels
    with grpc.insecure_channel(f"{host}:{port}", direct) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER)
        except grpc.FutureTimeoutError:
            return "the server there is not a Ray head (usually port 6379; 8265 is the dashboard)"
    return None


def why_unreachable(host: str, port: int) -> str | None:
    """Why nothing answers on a port; None if something answers. IPv6 hosts may be in brackets."""
    try:
        socket.create_connection((host.strip("[]"), port), timeout=ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:  # also of impossible ports and names
        return getattr(error, "strerror", None) or str(error)
    return None


def require_resources(workers: int, cpus_per_worker: int, use_gpu: bool, key: str) -> None:
    """Raise a `UserError` if the workers do not fit into the cluster. If an autoscaler may add
    nodes, print a line instead. `key` names the param with the number of workers."""
    import ray

    if (found := room_for({"CPU": cpus_per_worker, "GPU": int(use_gpu)})) >= workers:
        return
    size = f"{cpus_per_worker} CPUs{' and a GPU' if use_gpu else ''} each"
    reason = f"{workers} workers of {size}, but the Ray cluster's nodes have room for {found}"
    way_out = f"lower {key}, or set RAY_ADDRESS to a larger cluster"
    if may_grow():
        print(f"{key}: {reason}; waiting for the autoscaler to add nodes", flush=True)
        return
    if use_gpu and not ray.cluster_resources().get("GPU"):
        key, reason = "ray.use_gpu", "the Ray cluster has no GPU"
        way_out = "set ray.use_gpu to false, or set RAY_ADDRESS to a cluster with GPUs"
    raise UserError(key, reason, way_out)


def room_for(each: Mapping[str, float]) -> int:
    """How many workers with these resources fit into the cluster at once, each on one node."""
    import ray

    return sum(
        min(int(node["Resources"].get(kind, 0) // need) for kind, need in each.items() if need)
        for node in ray.nodes()
        if node["Alive"]
    )


def may_grow() -> bool:
    """Whether an autoscaler may add nodes to the cluster that this stage has joined."""
    return bool(cluster_address()) and os.environ.get(AUTOSCALING) == "1"


def wait_longer(seconds: float) -> None:
    """Make each of Ray Train's four attempts to start workers wait `seconds` (default: 60)."""
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(seconds))
