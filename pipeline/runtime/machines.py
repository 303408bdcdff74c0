"""The machines that did a stage's work: its own, or those of Ray's workers."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json, write_json
from pipeline.runtime.limits import TEXT

NOTE = "workers.json"  # in a run directory
Machine = dict[str, str]

_met: list[Machine] = []


def this_machine() -> Machine:
    """Host, device and versions of this process, which has picked its device."""
    import torch

    from pipeline.runtime.device import computing_on

    return {
        "host": platform.node(),
        "device": computing_on(),
        "python": platform.python_version(),
        "torch": torch.__version__,  # with its build
        "ray": version("ray"),
    }


def meet(machine: Machine) -> None:
    """Keep in mind that a worker of this process is on that machine."""
    _met.append(machine)


def meet_anew() -> None:
    """Forget who was met: this process begins other work."""
    _met.clear()


def note_workers(folder: Path, machines: Iterable[Machine]) -> None:
    """Note in a run directory who works there, beside those who did before it was taken up."""
    known = _noted(folder)
    write_json(folder / NOTE, _each_once([*known, *machines]), durable=False)


def machines_of(folders: Iterable[Path]) -> list[Machine]:
    """Every machine, once, that worked in these run directories, or in folders of theirs, or for
    this process."""
    noted = (Path(at) for folder in folders for at, _, names in os.walk(folder) if NOTE in names)
    return _each_once([*_met, *(m for folder in noted for m in _noted(folder))])


def _noted(folder: Path) -> list[Machine]:
    """A note that is damaged is none: no result is made of it."""
    if not (folder / NOTE).exists():
        return []
    try:
        noted = read_json(folder / NOTE)
    except (UserError, OSError):
        return []
    return [m for m in noted if _is_machine(m)] if isinstance(noted, list) else []


def _is_machine(noted: Any) -> bool:
    if not isinstance(noted, dict):
        return False
    texts = [text for pair in noted.items() for text in pair]
    return all(isinstance(t, str) and len(t) <= TEXT and t.isprintable() for t in texts)


def _each_once(machines: Iterable[Machine]) -> list[Machine]:
    found = {tuple(sorted(m.items())) for m in machines}
    return sorted(map(dict, found), key=lambda m: (m.get("host", ""), sorted(m.items())))
