"""Checkpoints as files, whole or not at all, and the run directory of a training in one process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.runtime.files import atomic_file


class RunDirSession:
    """One process; the checkpoint is a file in a run directory."""

    rank = 0

    def __init__(self, folder: Path, on_row: Callable[[dict[str, float]], None] = lambda row: None):
        self.path, self.on_row = Path(folder) / "checkpoint.pt", on_row

    def average(self, row: dict[str, float]) -> dict[str, float]:
        return row

    def load(self) -> dict[str, Any] | None:
        return load_checkpoint(self.path) if self.path.exists() else None

    def save(self, state: dict[str, Any], row: dict[str, float]) -> None:
        save_checkpoint(state, self.path)
        self.on_row(row)


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    with atomic_file(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch's word for a full disk
            raise OSError(f"no space, or {str(error).splitlines()[0]}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)
