"""The log of a run, on disk beside its checkpoints; `mlflow_sync` sends it to MLflow.

A log is a folder with `run.json` (name, params, tags, status, times), `metrics.jsonl` (one line for
each row of values, with the time they were measured), `artifacts/` (copies of files) and `runs/`
(the logs of child runs).
"""

import contextlib
import errno
import filecmp
import getpass
import json
import math
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from threading import Event, Thread
from typing import Any

from filelock import FileLock
from PIL import Image

from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.errors import UserError, cannot_write
from pipeline.runtime.files import atomic_file, file_hash, read_json, remove_temporary, write_json
from pipeline.runtime.runs import provenance

LOG = "log"  # the folder of a stage's log in its run directory
RUN, METRICS, ARTIFACTS, CHILDREN, SENT = (
    *("run.json", "metrics.jsonl", "artifacts", "runs"),
    "sent.json",  # what MLflow has of the log (`mlflow_sync`)
)
NOTE = "mlflow.note.content"  # MLflow shows this tag above everything else, as Markdown
IMAGES, SMALL = "images", (256, 256)  # MLflow's folder of pictures, and the size of their previews
SYSTEM = "system/"  # begins the names of the machine's load
SAMPLED = 15.0  # seconds between two measurements of the load


@dataclass
class RunLog:
    """The log of one run. Every process of this machine may append to it.

    A metric is named `<group>/<metric>`; MLflow draws a row of charts for each group. Values of
    params are steps, and not part of a name.

    Args:
        folder: of the log; absolute.
        key: tells the run from all others.
        params: by dotted key. A run that is resumed keeps the first value of each.
        parent: the parent's key; "" for a run without a parent.
    """

    folder: Path
    key: str
    name: str
    experiment: str
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    parent: str = ""
    _read: int = field(default=0, init=False, repr=False)  # bytes of metrics.jsonl
    _known: dict[tuple[str, int], float] = field(default_factory=dict, init=False, repr=False)

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; empty until MLflow has the run."""
        sent = self.folder / SENT
        return read_json(sent)["run_id"] if sent.exists() else ""

    @property
    def start(self) -> int:
        """When the run began first, in milliseconds."""
        return read_json(self.folder / RUN)["start"]

    def begin(self) -> "RunLog":
        """Begin the run, or resume it."""
        with self._edited() as run:
            remove_temporary(self.folder, RUN)
            remove_temporary(self.folder / ARTIFACTS, below=True)
            params = {name: str(value) for name, value in self.params.items()}
            run |= {"key": self.key, "name": self.name, "parent": self.parent}
            run |= {"experiment": self.experiment, "status": "RUNNING", "end": None}
            run |= {"start": run.get("start", _now()), "datasets": run.get("datasets", [])}
            run |= {"params": params | run.get("params", {})}
            run |= {"tags": run.get("tags", {}) | dict(self.tags)}
        return self

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log the finite numbers among the values. A value that the log has for the step is not
        logged again: a training that is resumed repeats its last rows."""
        finite = {
            name: float(value)
            for name, value in metrics.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        with self._locked(), open(self.folder / METRICS, "ab", buffering=0) as file:
            if os.fstat(file.fileno()).st_size < self._read:  # this is a copy on another machine
                self._read, self._known = 0, {}
            for end, row in read_rows(self.folder / METRICS, self._read):
                self._known |= {(name, row["step"]): v for name, v in row["metrics"].items()}
                self._read = end
            new = {k: v for k, v in finite.items() if self._known.get((k, step)) != v}
            if new:
                row = {"time": _now(), "step": step, "metrics": new}
                line = json.dumps(row).encode() + b"\n"
                file.truncate(self._read)  # cut off a line that a killed process did not finish
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())

    def log_group(self, group: str, metrics: Mapping[str, Any]) -> None:
        """Log the metrics of one group."""
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
        """Log the metrics of rows, averaged over the rows with the same group and step, such as
        those that differ in their seed. A metric that one of them lacks is left out.

        Args:
            group, step: of a row. MLflow requires whole steps: they are rounded, after they are
                multiplied by ten until no two of them coincide.
            leave_out: columns that are no metrics.
        """
        left_out, cells = set(leave_out), defaultdict[tuple[str, float], list[Any]](list)
        for row in rows:
            cells[group(row), step(row)].append(row)
        steps, scale = {at for _, at in cells}, 1
        while len({round(at * scale) for at in steps}) < len(steps) and scale < 10**9:
            scale *= 10
        for (name, exact), members in cells.items():
            columns = {k: [row.get(k) for row in members] for k in members[0] if k not in left_out}
            means = {f"{name}/{k}": fmean(v) for k, v in columns.items() if None not in v}
            self.log_metrics(means, round(exact * scale))

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags, as text."""
        with self._edited() as run:
            run["tags"] |= {name: str(value) for name, value in tags.items()}

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """Log a data set that the run reads. MLflow takes 500 characters of its name."""
        dataset = {"name": name[:500], "digest": digest[:32], "source": source}
        with self._edited() as run:
            run["datasets"] = [*(d for d in run["datasets"] if d != dataset), dataset]

    def log_artifact(self, path: Path | str) -> None:
        """Log a copy of a file, in place of an earlier one of the same name."""
        with self._locked():
            _copy(Path(path), self.folder / ARTIFACTS / Path(path).name)

    def log_image(self, path: Path | str, name: str, step: int) -> None:
        """Log a copy of a PNG picture; MLflow shows those of one name with a slider over steps.

        The files are named as by `mlflow.log_image`, with a hash in place of the random part, so
        that a picture that is logged twice is there once.
        """
        folder, digest = self.folder / ARTIFACTS / IMAGES, file_hash(Path(path))[:32]
        with self._locked():
            begun = folder.glob(f"{name}+step+{step}+timestamp+*+{digest}+compressed.webp")
            stems = [file.name.removesuffix("+compressed.webp") for file in begun]
            stem = stems[0] if stems else f"{name}+step+{step}+timestamp+{_now()}+{digest}"
            if not stems:
                with (
                    Image.open(path) as picture,
                    atomic_file(folder / f"{stem}+compressed.webp") as preview,
                ):
                    picture.thumbnail(SMALL)
                    picture.save(preview, format="webp")
            _copy(Path(path), folder / f"{stem}.png")

    def child(self, key: str, name: str, params: Mapping[str, Any], note: str = "") -> "RunLog":
        """The child run with that key; call `begin` where its work begins."""
        folder, tags = self.folder / CHILDREN / name.replace("/", "-"), {**self.tags, NOTE: note}
        return RunLog(folder, key, name, self.experiment, params, tags, self.key)

    def finish(self, ok: bool) -> None:
        """End the run, if it has begun."""
        if (self.folder / RUN).exists():
            with self._edited() as run:
                run |= {"status": "FINISHED" if ok else "FAILED", "end": _now()}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".log.lock"):
                yield
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    @contextlib.contextmanager
    def _edited(self) -> Iterator[dict[str, Any]]:
        """Yield the content of run.json, which is written after the block."""
        file = self.folder / RUN
        with self._locked():
            run = read_json(file) if file.exists() else {}
            yield run
            write_json(file, run)


def open_run(
    folder: Path,
    key: str,
    name: str,
    experiment: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    parent: str = "",
) -> RunLog:
    """Begin or resume a run, with the tags that say where it comes from, and params.yaml."""
    run = RunLog(folder, key, name, experiment, params, {**_origin(), **tags}, parent).begin()
    run.log_artifact(PARAMS_FILE)
    return run


def read_rows(file: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a metrics.jsonl from byte `start` on, each with the byte where it ends. The last
    line is left out as long as it is not finished.

    Raises:
        UserError: a line is damaged.
    """
    if not file.exists():
        return
    with open(file, "rb") as lines:
        lines.seek(start)
        for line in lines:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            try:
                yield start, json.loads(line)
            except ValueError as error:
                raise UserError(str(file), "is damaged", "delete it and run again") from error


def _now() -> int:
    return int(time.time() * 1000)


def _copy(source: Path, target: Path) -> None:
    if not (target.exists() and filecmp.cmp(source, target, shallow=False)):
        with atomic_file(target) as temporary:
            shutil.copyfile(source, temporary)


def _origin() -> dict[str, str]:
    """Where a run comes from, in our tags and in those that MLflow shows as its source."""
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
    """Logs the machine's load to a run until `finish()`. A step is a second since the run began."""

    def __init__(self, run: RunLog):
        self._run, self._finished = run, Event()
        self._thread = Thread(target=self._watch, name="monitor", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        self._finished.set()
        self._thread.join(timeout=1)  # a row that is being written comes before the run's end

    def _watch(self) -> None:
        monitors, start = list[Any](), self._run.start
        while not self._finished.wait(SAMPLED):
            # MLflow is imported late: other threads import it as a stage begins.
            monitors, metrics = monitors or _monitors(), dict[str, float]()
            for monitor in monitors:
                with contextlib.suppress(Exception):  # a container may hide its counters
                    monitor.clear_metrics()
                    monitor.collect_metrics()
                    metrics |= {SYSTEM + k: v for k, v in monitor.aggregate_metrics().items()}
            try:
                self._run.log_metrics(metrics, (_now() - start) // 1000)
            except UserError:  # a full disk stops the stage itself with this error
                return


def _monitors() -> list[Any]:
    """MLflow's monitors of processors, disks, network and GPUs, as far as this machine has them."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Any] = []
    for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
        with contextlib.suppress(Exception):  # there is no GPU, or no library for it
            monitors.append(kind())
    return monitors
