"""What travels to a worker: arguments, with what they name of the project's files.

Paths in it are of the project (`Site`): on a node with a copy of its own they lead there.
"""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

import cloudpickle

from pipeline.runtime.home import Place, Project
from pipeline.runtime.site import Site, here, work_at

OUTBOX = "log"  # what is logged: the stage logs it again at home


@dataclass(frozen=True)
class Parcel:
    """Arguments of a function that another process calls.

    Args:
        named: the files and folders whose paths are in it.
    """

    project: Project
    content: bytes
    named: tuple[Place, ...]

    @contextmanager
    def opened(self) -> Iterator[tuple[Any, ...]]:
        """The arguments, in the worker: what they name is here while the block runs, and what the
        block made of it is at home afterwards, however it ended.

        Raises:
            UserError: this node does not see the project.
        """
        site = work_at(self.project)
        site.bring(self.named)
        try:
            yield _Unpickler(BytesIO(self.content), site).load()
        finally:
            site.send(self.named)

    def take_back(self) -> None:
        """Let this process, which has sent it, have what the worker made."""
        here().bring(self.named)


def pack(*arguments: Any) -> Parcel:
    """A parcel of arguments: plain values, importable functions, paths."""
    site, file = here(), BytesIO()
    pickler = _Pickler(file, site)
    pickler.dump(arguments)
    named = tuple(dict.fromkeys(pickler.named))
    site.send(named)
    return Parcel(site.project, file.getvalue(), named)


def call(function: Callable[..., Any], parcel: Parcel) -> Any:
    """Call an importable function with what is in a parcel."""
    with parcel.opened() as arguments:
        return function(*arguments)


class _Pickler(cloudpickle.Pickler):
    """Writes absolute paths of the project as places, and notes these; and relative ones, if they
    are no plain text."""

    def __init__(self, file: BytesIO, site: Site):
        super().__init__(file)
        self.site, self.named = site, list[Place]()

    def persistent_id(self, value: Any) -> tuple[type, Place] | None:
        if not isinstance(value, str | PurePath):
            return None
        place = self.site.place(str(value))
        if place is None:
            if isinstance(value, PurePath) and not value.is_absolute():
                self._note(Place(0, str(value)))
            return None
        self._note(place)
        return (str if isinstance(value, str) else Path, place)

    def _note(self, place: Place) -> None:
        """Note a place that is no base, whose whole content nobody needs, and no log."""
        bases = ("", ".", self.site.project.storage_path)
        if place.name not in bases and OUTBOX not in Path(place.name).parts:
            self.named.append(place)


class _Unpickler(pickle.Unpickler):
    """Reads places as paths on this node."""

    def __init__(self, file: BytesIO, site: Site):
        super().__init__(file)
        self.site = site

    def persistent_load(self, found: tuple[type, Place]) -> Any:
        kind, place = found
        return kind(self.site.path(place))
