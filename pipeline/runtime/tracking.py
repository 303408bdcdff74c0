"""The one place that talks to MLflow."""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pipeline.runtime.dag import PARAMS_FILE, flatten
from pipeline.runtime.errors import UserError
from pipeline.runtime.runs import provenance

# A server that goes away must stop the run within seconds, not after MLflow's minutes of retries;
# live checkpoints are on disk, so running again goes on.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")

RUN_KEY = "maskgit.run"
PARENT = "mlflow.parentRunId"


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else an SQLite file in the project; absolute, since workers chdir."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').absolute()}"


def load_mlflow() -> None:
    """Import MLflow and the module that opens its database, which takes a second."""
    import_module("mlflow")
    if tracking_uri().startswith("sqlite:"):
        import_module("mlflow.store.tracking.sqlalchemy_store")


def check_reachable(uri: str) -> None:
    """Raise a `UserError` at once if the tracking server is down."""
    url = urlparse(uri)
    if url.scheme not in ("http", "https"):
        return
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname, port), timeout=5).close()
    except OSError as error:
        raise UserError(
            f"the MLflow server {uri} is unreachable ({error.strerror or error}); start it, or "
            f"unset MLFLOW_TRACKING_URI to log to mlflow.db"
        ) from None


class Run:
    """One MLflow run, addressed by id, so that any process may log to it."""

    def __init__(self, uri: str, run_id: str):
        from mlflow import MlflowClient

        self.uri, self.run_id = uri, run_id
        self._client = MlflowClient(uri)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log the finite numbers among the values, in one batch."""
        import math

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [
            Metric(name, float(value), now, step)
            for name, value in metrics.items()
            if isinstance(value, int | float) and math.isfinite(value)
        ]
        with _one_line_errors(self.uri):
            self._client.log_batch(self.run_id, metrics=batch)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log params that the run does not have yet: a run that is taken up again may find one that
        it does not depend on changed, and MLflow refuses to change it."""
        from mlflow.entities import Param

        with _one_line_errors(self.uri):
            known = self._client.get_run(self.run_id).data.params
            batch = [Param(k, str(v)[:6000]) for k, v in params.items() if k not in known]
            self._client.log_batch(self.run_id, params=batch)

    def log_artifact(self, path: Path | str) -> None:
        with _one_line_errors(self.uri):
            self._client.log_artifact(self.run_id, str(path))

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        from mlflow.entities import Dataset, DatasetInput

        dataset = Dataset(name, digest[:32], "local", source)
        with _one_line_errors(self.uri):
            self._client.log_inputs(self.run_id, [DatasetInput(dataset, [])])

    def child(self, key: str, name: str, params: Mapping[str, Any]) -> "Run":
        """Find or create the child run with that key."""
        run = _find_or_create(self.uri, key, name, {PARENT: self.run_id} | provenance())
        run.log_params(params)
        return run

    def finish(self, ok: bool) -> None:
        with _one_line_errors(self.uri):
            self._client.set_terminated(self.run_id, "FINISHED" if ok else "FAILED")


def open_run(key: str, name: str, params: dict[str, Any], experiment: str) -> Run:
    """The run of a stage, found again after a kill, with its params and the file they came from."""
    uri = tracking_uri()
    check_reachable(uri)
    run = _find_or_create(uri, key, name, provenance(), experiment)
    run.log_params(flatten(params))
    run.log_artifact(PARAMS_FILE)
    return run


def system_metrics(run: Run):
    """Start to log the machine's load to the run, until `finish()` of the monitor is called."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(
        run.run_id, sampling_interval=15, resume_logging=True, tracking_uri=run.uri
    )
    monitor.start()
    return monitor


def _find_or_create(
    uri: str, key: str, name: str, tags: Mapping[str, str], experiment: str | None = None
) -> Run:
    from mlflow import MlflowClient

    with _one_line_errors(uri):
        client = MlflowClient(uri)
        if experiment is None:  # a child: the experiment of its parent
            experiment_id = client.get_run(tags[PARENT]).info.experiment_id
        else:
            experiment_id = _experiment_id(client, experiment)
        found = client.search_runs([experiment_id], f"tags.`{RUN_KEY}` = '{key}'", max_results=1)
        if found:
            run_id = found[0].info.run_id
            client.update_run(run_id, status="RUNNING")
            for tag, value in tags.items():
                client.set_tag(run_id, tag, value)
        else:
            run_id = client.create_run(
                experiment_id, tags={**tags, RUN_KEY: key}, run_name=name
            ).info.run_id
    return Run(uri, run_id)


def _experiment_id(client, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found:
        return found.experiment_id
    local = client.tracking_uri.startswith("sqlite:")
    # Artifact paths too follow the working directory unless they are absolute.
    location = Path("mlruns").absolute().as_uri() if local else None
    return client.create_experiment(name, artifact_location=location)


@contextmanager
def _one_line_errors(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:  # the network's too are of the latter
        first = str(error).splitlines()[0][:200]
        raise UserError(f"MLflow at {uri} refused: {first}; what was made is kept") from error
