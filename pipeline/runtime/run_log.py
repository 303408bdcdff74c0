"""Writes the log of a run to disk, beside its checkpoints; `mlflow_sync` sends the log to MLflow.

A log is a folder with `run.json`, `metrics.jsonl` (rows of metrics, each with the time of its
measurement), `artifacts/` (copies of files) and `runs/` (the logs of child runs).
"""

import contextlib
import getpass
import json
import math
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from filelock import FileLock
from PIL import Image

from pipeline.runtime.errors import UserError, cannot_write
from pipeline.runtime.files import atomic_file, file_hash, read_json, remove_temporary, write_json
from pipeline.runtime.runs import provenance

LOG = "log"  # the folder of a stage's log in its run directory
RUN, METRICS, ARTIFACTS = "run.json", "metrics.jsonl", "artifacts"
SENT = "sent.json"  # the parts of the log that MLflow has (`mlflow_sync`)
NOTE = "mlflow.note.content"  # MLflow shows this tag above everything else, as Markdown
IMAGES, SMALL = "images", (256, 256)  # MLflow's folder of pictures, and the size of their previews


@dataclass
class RunLog:
    """The log of one run on disk. Several processes of a machine may write to a log at once."""

    folder: Path  # absolute
    key: str  # unique to the run
    name: str
    experiment: str
    params: Mapping[str, Any]  # by dotted key; a resumed run keeps the first value of each
    tags: Mapping[str, str]
    parent: str = ""  # the parent run's key
    _read: int = field(default=0, init=False, repr=False)  # bytes read of metrics.jsonl
    _known: dict[tuple[str, int], float] = field(default_factory=dict, init=False, repr=False)

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; empty if the run has not been sent yet."""
        sent = self.folder / SENT
        return read_json(sent)["run_id"] if sent.exists() else ""

    def begin(self) -> "RunLog":
        """Mark the run as running, and write its params and tags to the log."""
        with self._edited() as run:
            remove_temporary(self.folder, RUN)
            remove_temporary(self.folder / ARTIFACTS, below=True)
            params = {name: str(value) for name, value in self.params.items()}
            run |= {"key": self.key, "name": self.name, "parent": self.parent}
            run |= {"experiment": self.experiment, "status": "RUNNING", "end": None}
            run |= {"params": params | run.get("params", {})}
            run |= {"tags": {**run.get("tags", {}), **self.tags}}
            run.setdefault("start", _now())
            run.setdefault("datasets", [])
        return self

    def log_metrics(self, metrics: Mapping[str, Any], step: int = 0) -> None:
        """Log the metrics whose values are finite numbers. Values that the log already has for the
        step are skipped, because a resumed training run repeats its last rows."""
        file = self.folder / METRICS
        with self._locked(), open(file, "ab") as lines:
            if file.stat().st_size < self._read:  # unpickled on another machine
                self._read, self._known = 0, {}
            for end, row in read_rows(file, self._read):
                self._known |= {(name, row["step"]): v for name, v in row["metrics"].items()}
                self._read = end
            new = {
                name: float(value)
                for name, value in metrics.items()
                if isinstance(value, int | float) and math.isfinite(value)
                if self._known.get((name, step)) != value
            }
            if new:
                lines.truncate(self._read)  # cut off a line that a killed process did not finish
                row = {"time": _now(), "step": step, "metrics": new}
                lines.write(json.dumps(row).encode() + b"\n")
                lines.flush()
                os.fsync(lines.fileno())

    def log_group(self, group: str, metrics: Mapping[str, Any], step: int = 0) -> None:
        """Log metrics as `<group>/<metric>`; MLflow shows a row of charts for each group."""
        self.log_metrics({f"{group}/{name}": value for name, value in metrics.items()}, step)

    def log_training(self, row: Mapping[str, float]) -> None:
        """Log a row of a training history: each column as `train/<column>`, at the row's step."""
        values = {name: value for name, value in row.items() if name != "step"}
        self.log_group("train", values, int(row["step"]))

    def log_means(
        self,
        rows: Iterable[Mapping[str, Any]],
        group: Callable[[Any], str],
        leave_out: Container[str],
        step: Callable[[Any], float] = lambda row: 0,
    ) -> None:
        """Log the mean of each metric over all rows with the same `group(row)` and `step(row)`. A
        metric that one of these rows lacks is not logged. Steps are rounded, since MLflow requires
        integers. `leave_out` names the columns that are not metrics."""
        cells = defaultdict[tuple[str, float], list[Any]](list)
        for row in rows:
            cells[group(row), step(row)].append(row)
        for (name, at), members in cells.items():
            columns = {k: [row.get(k) for row in members] for k in members[0] if k not in leave_out}
            means = {k: fmean(v) for k, v in columns.items() if None not in v}
            self.log_group(name, means, round(at))

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; each value is converted to a string."""
        with self._edited() as run:
            run["tags"] |= {name: str(value) for name, value in tags.items()}

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """Log the data set that the run reads. Names are cut to 500 characters, MLflow's limit."""
        with self._edited() as run:
            run["datasets"] = [{"name": name[:500], "digest": digest[:32], "source": source}]

    def log_artifact(self, path: Path | str) -> None:
        """Log a copy of a file, which replaces an artifact of the same name."""
        with atomic_file(self.folder / ARTIFACTS / Path(path).name) as copy:
            shutil.copyfile(path, copy)

    def log_image(self, path: Path | str, name: str, step: int) -> None:
        """Log a copy of a PNG picture. MLflow shows all pictures of one `name` with a slider over
        the steps. The file's name has the format of `mlflow.log_image`. Does nothing if the log has
        this picture at this step, or on a machine where the run did not begin."""
        if not (self.folder / RUN).exists():
            return
        start = read_json(self.folder / RUN)["start"]
        stem = f"{name}+step+{step}+timestamp+{start}+{file_hash(path)[:32]}"
        file = self.folder / ARTIFACTS / IMAGES / f"{stem}.png"
        if not file.exists():
            preview = file.with_name(f"{stem}+compressed.webp")
            with Image.open(path) as picture, atomic_file(preview) as copy:
                picture.thumbnail(SMALL)
                picture.save(copy, format="webp")
            with atomic_file(file) as copy:
                shutil.copyfile(path, copy)

    def child(self, key: str, name: str, params: Mapping[str, Any], note: str = "") -> "RunLog":
        """Return the log of a child run. Call `begin` when the child's work begins."""
        folder, tags = self.folder / "runs" / name.replace("/", "-"), {**self.tags, NOTE: note}
        return RunLog(folder, key, name, self.experiment, params, tags, self.key)

    def finish(self, ok: bool) -> None:
        """End the run as finished or failed. Does nothing if the run has not begun."""
        if (self.folder / RUN).exists():
            with self._edited() as run:
                run |= {"status": "FINISHED" if ok else "FAILED", "end": _now()}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with FileLock(self.folder / ".log.lock"):
                yield
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    @contextlib.contextmanager
    def _edited(self) -> Iterator[dict[str, Any]]:
        """Yield the content of run.json, and write it after the block."""
        file = self.folder / RUN
        with self._locked():
            run = read_json(file) if file.exists() else {}
            yield run
            write_json(file, run)


def read_rows(file: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (end, row) for each complete row of a metrics.jsonl file from byte `start` on; `end` is
    the byte position of the row's end."""
    if not file.exists():
        return
    with open(file, "rb") as lines:
        lines.seek(start)
        for line in filter(lambda line: line.endswith(b"\n"), lines):
            start += len(line)
            try:
                yield start, json.loads(line)
            except ValueError as error:
                raise UserError(str(file), "is damaged", "delete the file and run again") from error


def _now() -> int:
    return int(time.time() * 1000)


def origin() -> dict[str, str]:
    """The origin of a run, as tags: the tags of `provenance`, and MLflow's user and source tags."""
    tags, user = provenance(), "unknown"
    with contextlib.suppress(KeyError, OSError):  # a container may have no user name
        user = getpass.getuser()
    return tags | {
        "mlflow.user": user,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": f"dvc.yaml:{tags['dvc.stage']}".rstrip(":"),
        "mlflow.source.git.commit": tags["git.commit"],
    }
