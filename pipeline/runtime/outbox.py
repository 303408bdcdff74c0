"""What is logged of one run, on disk before it is anywhere else: the tracking server gets its copy
from here (`delivery`), so that it can neither stop a stage nor lose a row."""

import contextlib
import errno
import json
import math
import os
import re
import shutil
import sys
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
OPENED, DATASET = ("uri", "experiment", "key", "name"), ("name", "digest", "source")
SYSTEM = "system/"  # names of what is measured of the machine, whose steps are never logged twice
LARGEST = sys.float_info.max


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
            copy = str(path.relative_to(self.folder))
            if copy not in logged and _is_copy(self.folder, copy):
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
        """The record that opened the run first."""
        return next(record for _, record in read_records(self.log, 0) if "open" in record)

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
    with open(log, "rb") as lines:
        lines.seek(start)
        for line in lines:
            if not line.endswith(b"\n"):
                return  # being written, or left by a killed writer
            start += len(line)
            try:
                record = json.loads(line.decode())
                if b"\\u" in line:
                    json.dumps(record, ensure_ascii=False).encode()  # no server takes half a letter
                damage = _damage(folder, record)
            except (ValueError, RecursionError):
                damage = "it is no JSON"
            yield start, {"damaged": damage} if damage else record


def _check_log(log: Path) -> None:
    """Look at a log before it is opened: a pipe would hang, a device never end."""
    if log.exists() and not log.is_file():
        raise Broken(f"{log} is no file, but a folder, pipe or device; delete {log.parent}")


def _damage(folder: Path, record: Any) -> str | None:
    """What is wrong with a record, if it is none that the outbox in `folder` writes."""
    kinds = _KINDS.keys() & record if type(record) is dict else set()
    if len(kinds) != 1:
        return "it is none that is logged"
    if not (_is_whole(record.get("time")) and record["time"] >= 0):
        return "time is no number of milliseconds"
    is_right, message = _KINDS[kind := kinds.pop()]
    return None if is_right(folder, record) else f"{kind} {message}"


def _is_whole(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63  # what a database takes


def _are_texts(value: Any, *names: str) -> bool:
    """Whether it is a mapping to texts, of these names if there are any."""
    mapping = type(value) is dict and (not names or value.keys() == set(names))
    return mapping and all(type(text) is str for text in value.values())


def _is_name(value: Any, most: int = 255) -> bool:
    """Whether a file may have that name, of `most` bytes."""
    plain = type(value) is str and value not in ("", ".", "..")
    return plain and not re.search(r"[/\0]", value) and len(os.fsencode(value)) <= most


def _is_open(folder: Path, record: Record) -> bool:
    opened = record["open"] if type(record["open"]) is dict else {}
    if not _are_texts({name: opened.get(name) for name in OPENED}) or not opened["experiment"]:
        return False
    parent, named = opened.get("parent", ""), "'" not in opened["key"]  # MLflow looks for no other
    return named and (parent is None or _is_name(parent)) and _are_texts(opened.get("tags"))


def _are_metrics(folder: Path, record: Record) -> bool:
    if type(record["metrics"]) is not dict or not _is_whole(record.get("step")):
        return False
    for value in record["metrics"].values():  # a loop: there are very many of them
        if type(value) not in (float, int) or not -LARGEST <= value <= LARGEST:
            return False
    return True


def _is_artifact(folder: Path, record: Record) -> bool:
    if "image" in record and not (_is_name(record["image"], 99) and _is_whole(record.get("step"))):
        return False  # they become a part of a file's name
    return type(record.get("hash")) is str and _is_copy(folder, record["artifact"])


def _is_copy(folder: Path, name: Any) -> bool:
    """Whether a file is a copy of an artifact that the outbox made, or was one: what anything else
    names is somebody's own, also behind a link."""
    hexes, _, last = str(name).removeprefix("files/").partition("/")
    if f"files/{hexes}/{last}" != name or not re.fullmatch("[0-9a-f]+", hexes):
        return False
    path = os.path.join(os.path.realpath(folder), name)
    there = os.path.isfile(path) or not os.path.exists(path)  # it was sent, and removed
    return _is_name(last) and os.path.realpath(path) == path and there


# What is right for each kind of record, and what is said of another.
_KINDS: dict[str, tuple[Callable[[Path, Record], bool], str]] = {
    "open": (_is_open, "does not say which run begins"),
    "metrics": (_are_metrics, "are no numbers of a step"),
    "params": (lambda _, r: _are_texts(r["params"]), "are no texts"),
    "artifact": (_is_artifact, "is no file of the outbox"),
    "tags": (lambda _, r: _are_texts(r["tags"]), "are no texts"),
    "dataset": (lambda _, r: _are_texts(r["dataset"], *DATASET), "has no name, digest and source"),
    "end": (lambda _, r: r["end"] in ("FINISHED", "FAILED"), "is no run's end"),
}
