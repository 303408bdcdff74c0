"""Joining Ray: the cluster that RAY_ADDRESS names, or a local one."""

import os
import socket
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError

# Read by Ray when it is imported or started; see each comment for what happens without.
_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in workers would lead elsewhere
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C would yield a partial grid without an error
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # each report would wait two seconds
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_DEDUP_LOGS": "0",  # progress lines of trials look alike and are not
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # `uv run` would build an environment per worker
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the other output prints tables at any verbosity
}

# Where nothing listens. Ray Train's watchdog asks the dashboard whether its controller lives: where
# its own cluster has none, a stranger's on Ray's usual port would say no.
NO_DASHBOARD = "http://127.0.0.1:9"


def join_ray() -> None:
    """Connect to RAY_ADDRESS (or to the job's cluster), else start a local cluster."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS", "")
    _check_reachable(address)
    quiet: dict[str, Any] = {
        "log_to_driver": True,
        "logging_level": "error",
        "configure_logging": True,
    }
    # Workers import this project whatever their working directory.
    path = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))
    env: dict[str, Any] = {
        "env_vars": {"PYTHONPATH": path} | {k: os.environ[k] for k in _ENVIRONMENT},
        "worker_process_setup_hook": "pipeline.runtime.process.set_up",
    }
    try:
        if address:
            ray.init(runtime_env=env, **quiet)
        else:
            # A machine of one's own is not preempted; the watcher would only log an error.
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
            # Workers that start before they are asked for would not have the environment above.
            os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
            # It lives as long as one stage, which MLflow shows: no dashboard, whose start takes
            # seconds of the workers' CPUs.
            env["env_vars"]["RAY_API_SERVER_ADDRESS"] = NO_DASHBOARD
            ray.init(address="local", include_dashboard=False, runtime_env=env, **quiet)
    except (ConnectionError, RuntimeError) as error:
        raise UserError(_cannot_join(address or "local", str(error).splitlines()[0])) from error


def _check_reachable(address: str) -> None:
    """Raise a `UserError` at once if nothing listens on the host and port of RAY_ADDRESS."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return  # none, "auto", "local"
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(_cannot_join(address, error.strerror or str(error))) from None


def _cannot_join(address: str, reason: str) -> str:
    return (
        f"cannot join Ray at '{address}': {reason}; start a head with `ray start --head`, or unset "
        f"RAY_ADDRESS"
    )


def require_resources(workers: int, cpus_per_worker: int, use_gpu: bool, key: str) -> None:
    """Raise a `UserError`, before any work, if the cluster can never hold the workers.

    Args:
        key: the param that sets their number, for the error.
    """
    import ray

    have = ray.cluster_resources()
    for kind, need in (("CPU", workers * cpus_per_worker), ("GPU", workers * use_gpu)):
        if need > have.get(kind, 0):
            raise UserError(
                f"{key}: {workers} workers need {need} {kind}s and the Ray cluster has "
                f"{have.get(kind, 0):g}; lower it, or join a larger cluster with RAY_ADDRESS"
            )
