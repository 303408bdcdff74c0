"""What is logged of one run, on disk before it is anywhere else: the tracking server gets its copy
from here (`delivery`), so that it can neither stop a stage nor lose a row."""

import contextlib
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
from typing import Any, BinaryIO

from filelock import FileLock

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import file_hash
from pipeline.runtime.limits import RECORD_BYTES
from pipeline.runtime.record_kinds import Record, damage_of, is_copy

LOG = "log.jsonl"
SYSTEM = "system/"  # names of what is measured of the machine, whose steps are never logged twice


class Broken(UserError):
    """An outbox that can be neither sent nor logged to until somebody puts it right."""


class Outbox:
    """The records of a run, in a folder of its own. Any process may append to it; only one at a
    time does.

    What a run has already is not appended again: a stage that was killed logs its last row twice,
    and one that is run again every row.

    `log.jsonl` holds a record a line, each with its time in milliseconds; `files/` holds copies of
    the artifacts that are not sent yet.
    """

    def __init__(self, folder: Path | str, first: Record | None = None):
        self.folder = Path(folder)
        self.log = self.folder / LOG
        self._read = 0  # bytes of the log that the following are of
        self._file = 0  # the log's number in the file system
        self._first = first  # record, which opened the run
        self._metrics: dict[tuple[str, int], float] = {}
        self._params: dict[str, str] = {}
        self._artifacts: dict[str, str] = {}

    def __reduce__(self) -> tuple[type["Outbox"], tuple[Path, Record | None]]:
        # It travels to workers, who read the log for themselves, or begin it where it was deleted.
        return Outbox, (self.folder, self._first)

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
            copy = str(path.relative_to(self.folder))
            if copy not in logged and is_copy(self.folder, copy):
                remove_copy(path)

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
        """The record that opened the run first.

        Raises:
            Broken: there is none, or the log is no file.
            OSError: it cannot be read.
        """
        for _, record in read_records(self.log, 0):
            if "open" in record:
                return record
        raise Broken(f"{self.log} opens no run; delete the folder {self.folder}")

    def seconds(self) -> int:
        """Since the run was opened first."""
        return int(time.time() - self.opened()["time"] / 1000)

    def _append(self, make: Callable[[], Record | None]) -> None:
        """Append what `make` returns, if anything, once all other processes' records are known.

        Raises:
            UserError: the disk is full, the folder cannot be written, or the log is no file.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _check_log(self.log)
            with FileLock(self.folder / "log.lock"), open(self.log, "ab", buffering=0) as log:
                self._forget_others(os.fstat(log.fileno()))
                for end, record in read_records(self.log, self._read):
                    self._note(record)
                    self._read = end
                if self._first and not self._read:  # someone has deleted the records
                    self._write(log, _line(self._first))
                new = make()
                if new is not None:
                    new = {"time": max(0, int(time.time() * 1000))} | new
                    self._write(log, _line(new))
                    self._note(new)
        except OSError as error:
            raise UserError(
                f"cannot log to {self.folder}: {error.strerror or error}; make room or change "
                f"permissions and run again, nothing made so far is lost"
            ) from error

    def _forget_others(self, log: os.stat_result) -> None:
        """Forget what was read, where the log is another by now."""
        if log.st_ino != self._file or log.st_size < self._read:
            self._read, self._metrics, self._params, self._artifacts = 0, {}, {}, {}
        self._file = log.st_ino

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
        if "open" in record:
            self._first = self._first or record
        elif "metrics" in record:
            step = record["step"]
            self._metrics |= {
                (k, step): v for k, v in record["metrics"].items() if not k.startswith(SYSTEM)
            }
        elif "params" in record:
            self._params = record["params"] | self._params
        elif "artifact" in record:
            self._artifacts[Path(record["artifact"]).name] = record["hash"]


def _line(record: Record) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def remove_copy(path: Path) -> None:
    """Remove an artifact's copy, with its folder if that holds nothing else."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        path.parent.rmdir()


def first_open(log: Path) -> Record | None:
    """The record that opened the run first; None as long as none is whole.

    Raises:
        Broken: it is damaged, so that nobody knows whose the others are; or the log is no file.
    """
    _, record = next(read_records(log, 0), (0, None))
    if record is None or "open" in record:
        return record
    why = f"its first record is damaged ({record.get('damaged', 'it opens no run')})"
    raise Broken(f"{log}: nothing of it can be sent, {why}; delete the folder {log.parent}")


def read_records(log: Path, start: int) -> Iterator[tuple[int, Record]]:
    """The whole records of a log from byte `start` on, each with the byte where it ends. In the
    place of one that is none that an outbox writes stands {"damaged": what is wrong with it}.

    Raises:
        Broken: the log is no file.
        OSError: it cannot be read.
    """
    _check_log(log)
    folder = log.parent
    with open(log, "rb") as file:
        file.seek(start)
        for size, line in _lines(file):
            start += size
            try:
                record = json.loads(line.decode())
                if b"\\u" in line:
                    json.dumps(record, ensure_ascii=False).encode()  # no server takes half a letter
                damage = damage_of(folder, record)
            except (ValueError, RecursionError):
                damage = "it is no JSON"
            yield start, {"damaged": damage} if damage else record


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a log, each with its size in bytes; of one that is longer than any record
    the end alone, which is no JSON. What has no line's end is being written, or a killed writer's.
    """
    size = 0
    while line := file.readline(RECORD_BYTES):
        size += len(line)
        if line.endswith(b"\n"):
            yield size, line if size == len(line) else b"\n"
            size = 0
        elif len(line) < RECORD_BYTES:  # all that there was: the rest may come at any moment
            return


def _check_log(log: Path) -> None:
    """Look at a log before it is opened: a pipe would hang, a device never end."""
    if log.exists() and not log.is_file():
        raise Broken(f"{log} is no file, but a folder, pipe or device; delete {log.parent}")
