"""A trial of the ablation: where it lies and what it has made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.config.paths import TOKENS
from pipeline.data.tokens import TokenCache
from pipeline.runtime.device import pick_device
from pipeline.runtime.failures import Failure
from pipeline.runtime.files import read_json


@dataclass(frozen=True)
class Trial:
    """One (schedule, seed), as plain values that travel to a worker. Paths are absolute."""

    seed: int
    iterations: list[int]
    folder: str  # of what is measured
    training_folder: str  # of its checkpoint and its finished model
    params: dict[str, Any]  # with the trial's own schedule and steps under `training`
    root: str  # the project's folder

    @property
    def schedule(self) -> str:
        return self.params["training"]["mask_schedule"]

    @property
    def name(self) -> str:
        return f"{self.schedule}/seed{self.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        return {"schedule": self.schedule, "seed": self.seed}

    def cell(self, iterations: int) -> Path:
        """The file with the measured row of one T, and how long it took."""
        return Path(self.folder) / "cells" / f"T{iterations:04d}.json"

    @property
    def model(self) -> Path:
        """The folder of its finished model."""
        return Path(self.training_folder) / "model"

    @property
    def trained(self) -> Path:
        """The file with the history of its training, and the seconds that it took."""
        return Path(self.training_folder) / "training.json"

    @property
    def failure(self) -> Failure:
        return Failure(self.folder)

    def missing(self) -> list[int]:
        """The iteration counts T that are not measured yet."""
        return [t for t in self.iterations if not self.cell(t).exists()]

    def rows(self) -> list[dict[str, Any]]:
        """The measured row of every T, in order."""
        return [read_json(self.cell(t))["row"] for t in self.iterations]

    def timings(self) -> list[dict[str, Any]]:
        """The seconds of every T, in order."""
        return [read_json(self.cell(t))["timing"] for t in self.iterations]

    def history(self) -> list[dict[str, float]]:
        """The history of its training; empty where released weights took its place."""
        released = self.params["transformer"]["pretrained"]
        return [] if released else read_json(self.trained)["history"]

    @property
    def num_classes(self) -> int:
        """Of the token cache."""
        return TokenCache(Path(self.root) / TOKENS, "train").num_classes

    def device(self) -> torch.device:
        """The device of a process of the trial."""
        return pick_device() if self.params["ray"]["use_gpu"] else torch.device("cpu")
