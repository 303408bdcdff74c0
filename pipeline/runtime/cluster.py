"""Joining Ray: the cluster that RAY_ADDRESS names, or a local one."""

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError
from pipeline.runtime.local_cluster import end_with_it, private_folder
from pipeline.runtime.process import NO_DASHBOARD, end_when_told, ends_when_told, tell

# Read by Ray when it is imported or started; see each comment for what happens without.
_NEEDED = {  # whatever the user has set
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in workers would lead elsewhere
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C would yield a partial grid without an error
}
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # four files a trial that nobody reads
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # each report would wait two seconds
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_DISABLE_WORKER_LOG_PREFIX": "1",  # "(trainable pid=123)", where lines name their training
    "RAY_DEDUP_LOGS": "0",  # progress lines of trials look alike and are not
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # `uv run` would build an environment per worker
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the other output prints tables at any verbosity
}

# Of a local cluster.
_LOCAL_ENVIRONMENT = {
    # Ray's switch for systems whose firewall asks about every open port: it listens on loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # A machine of one's own is not preempted; the watcher would only log an error.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Workers that start before they are asked for would not have the environment of workers.
    "RAY_prestart_worker_first_driver": "0",
    # Gloo would listen on the address that the machine's name stands for.
    "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
    # The worker that was asked for first stays: its end in the middle may be an abort, at length.
    "RAY_idle_worker_killing_time_threshold_ms": str(2**31 - 1),
}

ANSWER = 5.0  # seconds that a port may take to answer


def join_ray() -> None:
    """Connect to RAY_ADDRESS (or to the job's cluster), else start a local cluster.

    Raises:
        UserError: Ray cannot read its settings, or be reached.
    """
    if not (address := cluster_address()):
        os.environ.pop("RAY_ADDRESS", None)
    require_readable()
    os.environ |= _NEEDED
    for name, value in (_ENVIRONMENT | ({} if address else _LOCAL_ENVIRONMENT)).items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return
    if reason := why_no_cluster(address):
        raise UserError(_cannot_join(address, reason))
    quiet: dict[str, Any] = {
        "log_to_driver": True,
        "logging_level": "error",
        "configure_logging": True,
    }
    folder, ours = None if address else private_folder(), ends_when_told()
    try:
        if address:
            ray.init(runtime_env=_workers_environment(), **quiet)
        else:
            env = _workers_environment()
            # It lives as long as one stage, which MLflow shows: no dashboard, whose start takes
            # seconds of the workers' CPUs.
            env["env_vars"]["RAY_API_SERVER_ADDRESS"] = NO_DASHBOARD
            quiet["_temp_dir"] = folder
            ray.init(address="local", include_dashboard=False, runtime_env=env, **quiet)
    except Exception as error:  # a bare one too: that its start took too long
        raise UserError(_cannot_join(address, _first_line(error))) from error
    except SystemExit:  # of the handler that Ray puts in the place of ours
        tell()
    if ours:
        end_when_told()
    end_with_it()


def cluster_address() -> str:
    """What RAY_ADDRESS names; empty where a cluster of this machine alone is to be started."""
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


def require_readable() -> None:
    """Look, in another process, whether Ray can read its own settings, where some are set: one with
    letters where a number belongs would end this process without a word.

    Raises:
        UserError: it cannot.
    """
    given = [name for name in os.environ if re.match("RAY_[a-z]", name)]  # as in its C++
    if not given or "ray" in sys.modules or _imports_ray(os.environ):
        return
    others = {name: value for name, value in os.environ.items() if name not in given}
    bad = [name for name in given if not _imports_ray(others | {name: os.environ[name]})]
    if bad:  # else it was ended by something else
        raise UserError(f"{', '.join(bad)}: Ray cannot read what is set there; correct or unset it")


def _imports_ray(environment: Mapping[str, str]) -> bool:
    command = [sys.executable, "-c", "import ray"]
    return subprocess.run(command, env=environment, capture_output=True).returncode >= 0


def _workers_environment() -> dict[str, Any]:
    """The runtime environment of workers, as Ray takes it."""
    # They import this project whatever their working directory.
    path = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))
    environment: dict[str, Any] = {
        "env_vars": {"PYTHONPATH": path} | {k: os.environ[k] for k in _NEEDED | _ENVIRONMENT},
        "worker_process_setup_hook": "pipeline.runtime.process.set_up",
    }
    if shlex.quote(sys.executable) != sys.executable:
        # Ray gives it to a shell as it is, and begins again for ever where that finds nothing.
        environment["py_executable"] = shlex.quote(sys.executable)
    return environment


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def why_no_cluster(address: str) -> str | None:
    """Why there can be no cluster at a RAY_ADDRESS, which Ray would look for at length; None if
    something listens there, or Ray is to find one itself."""
    if address in ("", "auto"):
        return None
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isascii() and port.isdigit()):
        return "it is no host:port"
    return why_unreachable(host, int(port)) or _why_no_ray(f"{host}:{port}")


def _why_no_ray(address: str) -> str | None:
    """Why what listens at host:port is no Ray, which would be waited for: it does not speak gRPC,
    as the dashboard does not. With TLS nobody looks."""
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
    """Why nothing answers on a port; None if something does. A host of IPv6 may be in brackets."""
    try:
        socket.create_connection((host.strip("[]"), port), timeout=ANSWER).close()
    except OSError as error:
        return error.strerror or str(error)
    except (OverflowError, UnicodeError):  # a port above 65535; a name that no host may have
        return "there is no such host or port"
    return None


def _cannot_join(address: str, reason: str) -> str:
    if not address:
        way_out = "; run again, when the machine is less busy" if "timed out" in reason else ""
        if "AF_UNIX path" in reason and "RAY_TMPDIR" in os.environ:
            way_out = "; let RAY_TMPDIR name a folder with a shorter path, or unset it"
        return f"cannot start Ray: {reason}{way_out}"
    return (
        f"cannot join Ray at '{address}': {reason}; start a head with `ray start --head`, or unset "
        f"RAY_ADDRESS"
    )
