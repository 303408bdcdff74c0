"""What is wrong with a record of a run's log, if it is none that an outbox writes."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.runtime.files import value_hash

Record = dict[str, Any]
OPENED, DATASET = ("uri", "experiment", "key", "name"), ("name", "digest", "source")
LARGEST = sys.float_info.max


def damage_of(folder: Path, record: Any) -> str | None:
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


def outbox_name(uri: str, experiment: str, key: str) -> str:
    """The name of the folder that holds a run's records."""
    return value_hash([uri, experiment, key])[:16]


def _is_own(folder: Path, opened: Record) -> bool:
    """Whether a folder is the run's, and not one to which somebody copied what the run's has."""
    own = outbox_name(opened["uri"], opened["experiment"], opened["key"])
    return folder.name == own or not folder.with_name(own).exists()


def _is_open(folder: Path, record: Record) -> bool:
    opened = record["open"] if type(record["open"]) is dict else {}
    if not _are_texts({name: opened.get(name) for name in OPENED}) or not opened["experiment"]:
        return False
    if not _is_own(folder, opened):
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
    return type(record.get("hash")) is str and is_copy(folder, record["artifact"])


def is_copy(folder: Path, name: Any) -> bool:
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
    "open": (_is_open, "does not say which run begins, or another than the folder's"),
    "metrics": (_are_metrics, "are no numbers of a step"),
    "params": (lambda _, r: _are_texts(r["params"]), "are no texts"),
    "artifact": (_is_artifact, "is no file of the outbox"),
    "tags": (lambda _, r: _are_texts(r["tags"]), "are no texts"),
    "dataset": (lambda _, r: _are_texts(r["dataset"], *DATASET), "has no name, digest and source"),
    "end": (lambda _, r: r["end"] in ("FINISHED", "FAILED"), "is no run's end"),
}
