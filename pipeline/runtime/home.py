"""The project's home: the node on which it lies, and the actor there that gives its files out and
takes them in, for workers of nodes that do not see it."""

import atexit
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.runtime.dag import FILE_PARAMS, PARAMS_FILE, flatten, makers, stage_deps
from pipeline.runtime.errors import cannot_write
from pipeline.runtime.files import read_yaml, to_disk
from pipeline.runtime.project import lies_in
from pipeline.runtime.remote import Output, output_at

# Set where the folder is one that a job has made for itself: no other node sees it, and what its
# stages make is in the DVC remote before the next begins.
OWN_COPY = "MASKGIT_OWN_COPY"
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
        pushed: whether the DVC remote has what other stages made.
    """

    def __init__(self, *bases: str, pushed: bool = False):
        self._bases, self._pushed = bases, pushed

    def listed(self, place: Place) -> dict[str, Stamp]:
        """As the function, of a place here."""
        return listed(self._path(place))

    def output(self, place: Place) -> Output | None:
        """What a stage made at a place, as it lies in the remote; None where it may lack it."""
        return output_at(Path(self._bases[0]), place.name) if self._pushed else None

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


def needed() -> tuple[Place, ...]:
    """What the running stage needs that other stages made, and the files that params name. (A stage
    that was started by hand is not known: what any of them needs.)"""
    made, stage = makers(), os.environ.get("DVC_STAGE")
    paths = [path for path in (stage_deps(stage) if stage else made) if path in made]
    values = flatten(read_yaml(PARAMS_FILE))
    paths += [str(values[name]) for name in FILE_PARAMS if values.get(name)]
    return tuple(
        Place(0, path) for path in paths if not Path(path).is_absolute() and Path(path).exists()
    )


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


def mark_beside(storage: Path, mark: Path) -> Path:
    """The same mark where run directories lie, unless that is in the project."""
    if lies_in(storage, mark.parent):
        return mark
    beside = own_mark(storage)
    try:
        storage.mkdir(parents=True, exist_ok=True)
        beside.touch()
    except OSError as error:
        raise cannot_write(beside, error) from error
    atexit.register(beside.unlink, missing_ok=True)
    return beside
