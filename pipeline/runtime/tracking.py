"""Logging to MLflow: what a stage logs is on disk at once (`outbox`) and sent from there
(`delivery`), so that no outage of the tracking server costs a stage time or a row."""

import contextlib
import getpass
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from threading import Event, Thread
from typing import Any

from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.outbox import SYSTEM, Outbox
from pipeline.runtime.record_kinds import outbox_name
from pipeline.runtime.runs import provenance
from pipeline.runtime.sending import sent_part
from pipeline.runtime.uris import OWN, is_place, recorded_uri, tracking_uri

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")

NOTE = "mlflow.note.content"
SAMPLED = 15.0  # seconds between two looks at the machine's load


class Run:
    """One MLflow run. Any process may log to it that sees the run's outbox; nothing here waits for
    the tracking server.

    Names of metrics are `<group>/<metric>`, a group being a row of charts in MLflow: `train/` for
    the columns of a training's history, else what was measured, as `transformer/`. Values of params
    are steps, and no part of a name.

    Args:
        opened: what the run begins with; `begin` notes it.
    """

    def __init__(self, outbox: Outbox, opened: dict[str, Any], params: Mapping[str, Any]):
        self.outbox, self._opened, self._params = outbox, opened, dict(params)

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; empty as long as the server did not give one."""
        return sent_part(self.outbox.folder)["run_id"] or ""

    def begin(self) -> "Run":
        """The run begins now, in whichever process this is, or is taken up."""
        self.outbox.append_open(self._opened)
        self.outbox.append_params(self._params)
        return self

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log the finite numbers among the values. The same value of the same step is logged
        once."""
        self.outbox.append_metrics(metrics, step)

    def log_group(self, group: str, metrics: Mapping[str, Any]) -> None:
        """Log what was measured of one thing."""
        self.log_metrics({f"{group}/{name}": value for name, value in metrics.items()})

    def log_training(self, row: Mapping[str, float]) -> None:
        """Log a row of a training's history."""
        step = int(row["step"])
        self.log_metrics({f"train/{k}": v for k, v in row.items() if k != "step"}, step)

    def log_means(
        self,
        rows: Iterable[Mapping[str, Any]],
        group: Callable[[Any], str],
        leave_out: Iterable[str],
        step: Callable[[Any], float] = lambda row: 0,
    ) -> None:
        """Log the metrics of rows; of several in one group and step, as where only seeds differ,
        their means. One that a row lacks is left out.

        Args:
            group, step: of a row. MLflow wants whole steps: they are rounded, and where two would
                be one, they are of ten times the value, or a hundred times and so on.
            leave_out: columns that are no metrics.
        """
        left_out, cells = set(leave_out), defaultdict[tuple[str, float], list[Any]](list)
        for row in rows:
            cells[group(row), step(row)].append(row)
        steps, scale = {at for _, at in cells}, 1
        while len({round(at * scale) for at in steps}) < len(steps) and scale < 10**9:
            scale *= 10
        for (name, exact), members in cells.items():
            at = round(exact * scale)
            columns = {k: [row.get(k) for row in members] for k in members[0] if k not in left_out}
            means = {f"{name}/{k}": fmean(v) for k, v in columns.items() if None not in v}
            self.log_metrics(means, at)

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        if tags:
            self.outbox.append({"tags": {name: str(value) for name, value in tags.items()}})

    def log_artifact(self, path: Path | str) -> None:
        """Log a copy of a file, as it is now."""
        self.outbox.append_artifact(path)

    def log_image(self, path: Path | str, name: str, step: int) -> None:
        """Log a copy of a picture, of which MLflow shows one for each step, with a slider."""
        self.outbox.append_artifact(path, {"image": name, "step": step})

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """Log what the run reads; of a name its first 500 characters, MLflow's limit."""
        self.outbox.append({"dataset": {"name": name[:500], "digest": digest, "source": source}})

    def child(self, key: str, name: str, params: Mapping[str, Any], note: str = "") -> "Run":
        """The child run with that key, found or created as it begins."""
        own, opened = self.outbox.folder, self._opened
        tags = opened["tags"] | {NOTE: note}
        return _run(own.parent, key, name, opened["experiment"], params, tags, parent=own.name)

    def finish(self, ok: bool) -> None:
        """The run ends, if it ever began."""
        if self.outbox.log.exists():
            self.outbox.append({"end": "FINISHED" if ok else "FAILED"})


def open_run(
    key: str,
    name: str,
    params: Mapping[str, Any],
    experiment: str,
    folder: Path,
    *,
    parent: Run | None = None,
    tags: Mapping[str, str] | None = None,
) -> Run:
    """A run that begins, found again after a kill, with its params and the file they came from.

    Args:
        params: by dotted key.
        folder: holds the outboxes.
        tags: besides those of where it comes from. NOTE is what MLflow shows above everything else
            of the run, in Markdown.
    """
    above = parent.outbox.folder.name if parent else None
    every = _origin() | dict(tags or {})
    run = _run(folder, key, name, experiment, params, every, above).begin()
    run.log_artifact(PARAMS_FILE)
    return run


def _run(
    folder: Path,
    key: str,
    name: str,
    experiment: str,
    params: Mapping[str, Any],
    tags: dict[str, str],
    parent: str | None,
) -> Run:
    uri = recorded_uri(folder)
    begun = folder / outbox_name(OWN, experiment, key)
    if begun.exists() and is_place(OWN, tracking_uri(), folder):
        uri = OWN  # before its folder was moved to another disk, and linked
    outbox = Outbox(folder / outbox_name(uri, experiment, key))
    opened = {"uri": uri, "experiment": experiment, "key": key, "name": name, "parent": parent}
    return Run(outbox, opened | {"tags": tags}, params)


def _origin() -> dict[str, str]:
    """Where a run comes from, in our tags and in those that MLflow itself shows as its source."""
    origin = provenance()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        user = "unknown"
    return origin | {
        "mlflow.user": user,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": ":".join(filter(None, ("dvc.yaml", origin["dvc.stage"]))),
        "mlflow.source.git.commit": origin["git.commit"],
    }


class MachineMonitor:
    """Logs the machine's load to a run, until `finish()`; a step is a second since the run
    began."""

    def __init__(self, run: Run):
        self._run, self._finished = run, Event()
        self._thread = Thread(target=self._watch, name="monitor", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        self._finished.set()
        self._thread.join(timeout=1)  # a row on its way comes before the run's end

    def _watch(self) -> None:
        monitors: list[Any] = []
        while not self._finished.wait(SAMPLED):
            # Not at once: other threads import MLflow as a stage begins.
            monitors, metrics = monitors or _monitors(), dict[str, float]()
            for monitor in monitors:
                with contextlib.suppress(Exception):  # a container may hide what it counts
                    monitor.clear_metrics()
                    monitor.collect_metrics()
                    metrics |= {SYSTEM + k: v for k, v in monitor.aggregate_metrics().items()}
            try:
                self._run.log_metrics(metrics, self._run.outbox.seconds())
            except (UserError, OSError):  # a full disk, of which the stage itself will tell
                return


def _monitors() -> list[Any]:
    """MLflow's monitors of the processors, disks, network and, where there are any, GPUs."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Any] = []
    for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
        with contextlib.suppress(Exception):  # no GPU, no library that asks one, no counters
            monitors.append(kind())
    return monitors
