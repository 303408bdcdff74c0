"""Checkpoints as files, whole or not at all, and the run directory of a training in one process."""

import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import atomic_file, remove, remove_temporary, require_file
from pipeline.runtime.limits import STEPS
from pipeline.runtime.storage import download, upload
from pipeline.training.loop.behind import Behind, snapshot

CHECKPOINT = "checkpoint.pt"  # the newest of a training
BEFORE = "checkpoint.before.pt"  # the one before
INSTEAD = "or delete it to do without it"  # of reading a checkpoint
PARTS = {"task", "step", "history", "run"}  # of a loop's checkpoint


class Damaged(UserError):
    """A checkpoint is not what was written."""


class RunDirSession:
    """One process; the checkpoint is a file in a run directory, and so is the one before."""

    rank = 0
    who: Mapping[str, float] = {}

    def __init__(self, folder: Path, on_row: Callable[[dict[str, float]], None] = lambda row: None):
        self.folder, self.on_row = Path(folder), on_row
        self.path = self.folder / CHECKPOINT
        self.before = self.folder / BEFORE
        self._behind = Behind()

    def average(self, row: dict[str, float]) -> dict[str, float]:
        return row

    def load(self) -> dict[str, Any] | None:
        download(self.folder)
        remove_temporary(self.path.parent)
        first = not is_there(self.before)
        state, damaged = newest_whole([self.path, self.before], first=first)
        for path in damaged:
            remove(path)
        return state

    def save(self, state: dict[str, Any], row: dict[str, float]) -> None:
        self.on_row(row)  # first: a kill in between repeats the row, which is logged once
        self._behind.settle()  # before there is a second copy in memory
        self._behind(self._write, snapshot(state))

    def settle(self) -> None:
        self._behind.settle()

    def _write(self, state: dict[str, Any]) -> None:
        with atomic_file(self.path) as temporary:
            _write(state, temporary)
            if self.path.exists():
                os.replace(self.path, self.before)
        upload(self.path)


def newest_whole(
    paths: Iterable[Path], say: Callable[[str], None] = print, first: bool = False
) -> tuple[dict[str, Any] | None, list[Path]]:
    """The state in the first of the checkpoints that is whole, and those that are damaged and stood
    before it. The state is None where there is none at all, or only the first one, damaged.

    Args:
        paths: the newest first; they need not exist.
        say: takes a line for each checkpoint that is damaged.
        first: the newest is a training's first, so that only the way to it is lost with it.

    Raises:
        UserError: there are checkpoints, and all of them are damaged, or of something else.
    """
    damaged: list[Path] = []
    foreign = False
    for path in filter(is_there, paths):
        try:
            state = load_checkpoint(path)
            if not is_state(state):
                foreign = True
                raise Damaged(f"{path} is damaged (it holds no state of a training)")
        except Damaged as error:
            say(f"{error}; looking for the one before")
            damaged.append(path)
            continue
        if damaged:
            say(f"going on from the checkpoint before, of step {state['step']}")
        return state, damaged
    if damaged and first and not foreign:
        say("it was the first: training begins anew")
    elif damaged:
        raise UserError(
            f"every checkpoint in {damaged[0].parent} is damaged; delete that folder to train from "
            f"the start, or put a whole copy back"
        )
    return None, damaged


def is_state(state: Any) -> bool:
    """Whether it is what a loop keeps: a history of rows of numbers, up to the step, and whose."""
    if not isinstance(state, dict) or not state.keys() >= PARTS or type(state["run"]) is not str:
        return False
    rows, step = state["history"], state["step"]
    return is_history(rows) and rows[-1]["step"] == step and type(step) is int


def is_history(rows: Any) -> bool:
    """Whether it is what a loop has reported: rows of numbers, one after the other."""
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return False
    most, numbers = sys.float_info.max, [value for row in rows for value in row.values()]
    if not all(type(value) in (int, float) and abs(value) <= most for value in numbers):
        return False
    steps = [row.get("step") for row in rows]
    whole = all(type(step) is int and 0 < step <= STEPS for step in steps)
    return whole and steps == sorted(set(steps))


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint.

    Raises:
        UserError: it cannot be written; what was there before stays.
    """
    with atomic_file(path) as temporary:
        _write(state, temporary)


def _write(state: dict[str, Any], path: Path) -> None:
    try:
        torch.save(state, path)
    except RuntimeError as error:  # torch's word for a full disk
        raise OSError(f"no space, or {str(error).splitlines()[0]}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; no code in it is run.

    Raises:
        Damaged: it is cut off, or a bit of it has changed.
        PassingError: it cannot be read now, which says nothing of what is in it.
    """
    try:
        require_file(path)
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
            if broken := archive.testzip():
                raise ValueError(f"{broken} does not match its checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and zipfile have many names for it
        require_readable(path, error, INSTEAD)
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise Damaged(f"{path} is damaged ({reason})") from error


def is_there(path: Path) -> bool:
    """Whether anything lies at a path.

    Raises:
        PassingError: the system does not say so now.
    """
    try:
        path.lstat()
    except OSError as error:
        require_readable(path, error, INSTEAD)
        return False
    return True
