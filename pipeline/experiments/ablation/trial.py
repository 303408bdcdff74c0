"""A trial of the ablation: where it lies and what it has made."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.paths import TOKENS
from pipeline.data.tokens import TokenCache
from pipeline.runtime.files import read_json
from pipeline.training.loop import Workers
from pipeline.training.transformer import TransformerTraining


@dataclass(frozen=True)
class Cell:
    """A decoding of a trial's model, and what was measured of it."""

    schedule: str  # that it is decoded with
    iterations: int
    folder: str  # absolute

    @property
    def path(self) -> Path:
        """The file with the measured row, and how long it took."""
        return Path(self.folder) / "cells" / f"T{self.iterations:04d}.json"


@dataclass(frozen=True)
class Trial:
    """One (schedule, seed), as plain values that travel to a worker. Paths are absolute."""

    seed: int
    cells: list[Cell]  # decoded with its own schedule, one for each T, in order
    crossed: list[Cell]  # decoded with each of the schedules that are crossed
    folder: str  # of what is measured
    training: TransformerTraining | None  # None where released weights take its place
    workers: Workers  # of the training; then all but one decode, and that one measures
    params: dict[str, Any]  # with the trial's own schedule and steps under `training`
    root: str  # the project's folder
    features: str  # the folder with the features of the training images

    @property
    def schedule(self) -> str:
        return self.params["training"]["mask_schedule"]

    @property
    def name(self) -> str:
        return f"{self.schedule}/seed{self.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        return {"schedule": self.schedule, "seed": self.seed}

    @property
    def folders(self) -> list[Path]:
        """The run directories that it reads and writes."""
        cells = dict.fromkeys(Path(cell.folder) for cell in self.cells + self.crossed)
        training = [] if self.training is None else self.training.folders
        return [*cells, *training, Path(self.features)]

    def missing(self) -> list[Cell]:
        """The cells that are not measured yet."""
        return [c for c in dict.fromkeys(self.cells + self.crossed) if not c.path.exists()]

    @property
    def finished(self) -> bool:
        for folder in {cell.folder for cell in self.cells + self.crossed}:
            list(os.walk(folder))  # so that an NFS client sees other machines' new files
        return not self.missing()

    def rows(self) -> list[dict[str, Any]]:
        """The measured row of every T, in order."""
        return [read_json(cell.path)["row"] for cell in self.cells]

    def crossing(self) -> list[dict[str, Any]]:
        """The measured row of every schedule that the model is decoded with."""
        rows = []
        for cell in self.crossed:
            row = read_json(cell.path)["row"]
            first = {"schedule": row.pop("schedule"), "decoding_schedule": cell.schedule}
            rows.append(first | row)
        return rows

    def timings(self) -> list[dict[str, Any]]:
        """The seconds of every T, in order."""
        return [read_json(cell.path)["timing"] for cell in self.cells]

    def history(self) -> list[dict[str, float]]:
        """The history of its training; empty where released weights took its place."""
        return [] if self.training is None else self.training.history

    @property
    def num_classes(self) -> int:
        """Of the token cache."""
        return TokenCache(Path(self.root) / TOKENS, "train").num_classes
