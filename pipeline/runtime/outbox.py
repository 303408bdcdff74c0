"""What is logged of one run, on disk before it is anywhere else: the tracking server gets its copy
from here (`delivery`), so that it can neither stop a stage nor lose a row."""

import errno
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import file_hash

Record = dict[str, Any]
LOG = "log.jsonl"
SYSTEM = "system/"  # names of what is measured of the machine, whose steps are never logged twice


class Outbox:
    """The records of a run, in a folder of its own. Any process may append to it; only one at a
    time does.

    What a run has already is not appended again: a stage that was killed logs its last row twice,
    and one that is run again every row.

    `log.jsonl` holds a record a line, each with its time in milliseconds; `files/` holds copies of
    the artifacts that are not sent yet.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self.log = self.folder / LOG
        self._read = 0  # bytes of the log that the following are of
        self._metrics: dict[tuple[str, int], float] = {}
        self._params: dict[str, str] = {}
        self._artifacts: dict[str, str] = {}

    def __reduce__(self) -> tuple[type["Outbox"], tuple[Path]]:
        return Outbox, (self.folder,)  # it travels to workers, who read the log for themselves

    def append_open(self, opened: Mapping[str, Any]) -> None:
        """The run begins, or goes on."""

        def record() -> Record:
            self._remove_unlogged()
            return {"open": dict(opened)}

        self._append(record)

    def _remove_unlogged(self) -> None:
        """Remove the copies of artifacts that a kill, or a full disk, left without a record."""
        logged = {r["artifact"] for _, r in read_records(self.log, 0) if "artifact" in r}
        for path in self.folder.glob("files/*/*"):
            if str(path.relative_to(self.folder)) not in logged:
                shutil.rmtree(path.parent, ignore_errors=True)

    def append_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Those of the values that are finite numbers, and that this step does not have yet."""
        finite = {
            name: float(value)
            for name, value in metrics.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }

        def record() -> Record | None:
            new = {k: v for k, v in finite.items() if self._metrics.get((k, step)) != v}
            return {"metrics": new, "step": step} if new else None

        self._append(record)

    def append_params(self, params: Mapping[str, Any]) -> None:
        """Those params that the run does not have: one that is taken up again may find a param
        changed that it does not depend on, which MLflow would refuse."""

        def record() -> Record | None:
            new = {k: str(v) for k, v in params.items() if k not in self._params}
            return {"params": new} if new else None

        self._append(record)

    def append_artifact(self, path: Path | str, shown: Mapping[str, Any] | None = None) -> None:
        """A copy of the file, unless the run has the same one of that name.

        Args:
            shown: {image, step} of a picture that belongs to a step.
        """
        source = Path(path)
        copy = Path("files", uuid.uuid4().hex[:12], source.name)

        def record() -> Record | None:
            digest = file_hash(source)
            if self._artifacts.get(source.name) == digest:
                return None
            (self.folder / copy).parent.mkdir(parents=True)
            shutil.copyfile(source, self.folder / copy)
            return {"artifact": str(copy), "hash": digest} | dict(shown or {})

        self._append(record)

    def append(self, record: Record) -> None:
        """Any other record."""
        self._append(lambda: record)

    def opened(self) -> Record:
        """The record that opened the run first."""
        return next(record for _, record in read_records(self.log, 0) if "open" in record)

    def seconds(self) -> int:
        """Since the run was opened first."""
        return int(time.time() - self.opened()["time"] / 1000)

    def _append(self, make: Callable[[], Record | None]) -> None:
        """Append what `make` returns, if anything, once all other processes' records are known.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "log.lock"), open(self.log, "ab", buffering=0) as log:
                for end, record in read_records(self.log, self._read):
                    self._note(record)
                    self._read = end
                new = make()
                if new is not None:
                    new = {"time": int(time.time() * 1000)} | new
                    self._write(log, json.dumps(new).encode() + b"\n")
                    self._note(new)
        except OSError as error:
            raise UserError(
                f"cannot log to {self.folder}: {error.strerror or error}; make room or change "
                f"permissions and run again, nothing made so far is lost"
            ) from error

    def _write(self, log: FileIO, line: bytes) -> None:
        """Append a whole line, or none: what a killed writer or a full disk left of one is cut
        off."""
        log.truncate(self._read)
        try:
            if log.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(log.fileno())
        except OSError:
            log.truncate(self._read)
            raise
        self._read += len(line)

    def _note(self, record: Record) -> None:
        if "metrics" in record:
            step = record["step"]
            self._metrics |= {
                (k, step): v for k, v in record["metrics"].items() if not k.startswith(SYSTEM)
            }
        elif "params" in record:
            self._params = record["params"] | self._params
        elif "artifact" in record:
            self._artifacts[Path(record["artifact"]).name] = record["hash"]


def read_records(log: Path, start: int) -> Iterator[tuple[int, Record]]:
    """The whole records of a log from byte `start` on, each with the byte where it ends. One that
    a bad disk damaged is empty."""
    with open(log, "rb") as lines:
        lines.seek(start)
        for line in lines:
            if not line.endswith(b"\n"):
                return  # being written, or left by a killed writer
            start += len(line)
            try:
                yield start, json.loads(line)
            except ValueError:
                yield start, {}
