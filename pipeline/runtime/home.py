"""The project's home: the node on which it lies, and the actor there that gives its files out and
takes them in, for workers of nodes that do not see it."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.runtime.files import to_disk

CHUNK = 32 * 2**20  # bytes that travel at once


class Stamp(NamedTuple):
    """What tells a file's content from that of another time."""

    size: int
    changed: int  # in nanoseconds; a copy has that of its original


class Place(NamedTuple):
    """A file or folder of the project, wherever a process sees it."""

    base: int  # of `Site.bases`
    name: str  # relative to it


@dataclass(frozen=True)
class Project:
    """The project, as workers are told of it; folders are absolute, at home."""

    folder: str
    storage: str  # of its run directories
    storage_path: str = "runs"  # the same in params.yaml
    marks: tuple[str, ...] = ()  # files there while home works, by which a node knows that it sees
    actor: str = ""  # the name of `Home`; empty where every node sees the folder
    inputs: tuple[Place, ...] = ()  # what the running stage needs of the stages before it
    stage: str = ""  # the one that runs
    code: tuple[tuple[str, str], ...] = ()  # as `stage_code` gave it when that began


class Home:
    """An actor beside the project's files.

    Args:
        bases: the project's folder and its storage.
    """

    def __init__(self, *bases: str):
        self._bases = bases

    def listed(self, place: Place) -> dict[str, Stamp]:
        """As the function, of a place here."""
        return listed(self._path(place))

    def read(self, place: Place, name: str, start: int) -> bytes:
        """At most `CHUNK` bytes of a file in a place, from `start` on."""
        with open(self._path(place) / name, "rb") as file:
            file.seek(start)
            return file.read(CHUNK)

    def write(self, place: Place, name: str, content: bytes, aside: str, changed: int) -> None:
        """Append to the file beside that of this name; the last call, which knows when the original
        was changed, gives it the name.

        Args:
            changed: 0 as long as more is to come.
        """
        path = self._path(place) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(aside)
        with open(beside, "ab") as file:
            file.write(content)
        if changed:
            os.utime(beside, ns=(changed, changed))
            to_disk(beside)
            os.replace(beside, path)

    def remove(self, place: Place, name: str) -> None:
        """Remove a file in a place."""
        (self._path(place) / name).unlink(missing_ok=True)

    def _path(self, place: Place) -> Path:
        return Path(self._bases[place.base], place.name)


def listed(path: Path) -> dict[str, Stamp]:
    """The files in a folder by relative name, or the file itself by an empty one; without those
    whose name begins with a dot, which are locks and what is half written."""
    if path.is_file():
        return {"": _stamp(path)}
    found = {file.relative_to(path): file for file in path.rglob("*") if file.is_file()}
    return {
        str(name): _stamp(file)
        for name, file in sorted(found.items())
        if not any(part.startswith(".") for part in name.parts)
    }


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return Stamp(found.st_size, found.st_mtime_ns)


def own_mark(folder: Path) -> Path:
    """Where this process may put a file into a folder, for nodes to see. Those of processes that
    were killed are removed."""
    import psutil

    name = f".seen-{platform.node()}-"
    for path in folder.glob(f"{name}*"):
        pid = path.name.removeprefix(name)
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            path.unlink(missing_ok=True)
    return folder / f"{name}{os.getpid()}"
