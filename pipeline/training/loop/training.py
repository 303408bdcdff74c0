"""What a training is: its settings, its workers, and the task of each worker."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.schema import Ray
from pipeline.data.ranks import ALONE, Ranks
from pipeline.runtime.run_log import RunLog
from pipeline.runtime.trials import Needs
from pipeline.training.loop.divergence import SpikeGuard, mean_over_workers, total_norm


class Task(ABC):
    """A worker's share of a training: its networks, optimizers and data."""

    saved: tuple[str, ...]  # the attributes whose state dicts a checkpoint holds
    model: torch.nn.Module
    ranks: Ranks = ALONE
    guard: SpikeGuard | None = None

    @abstractmethod
    def step(self, step: int) -> dict[str, Tensor]:
        """Take an optimisation step. Returns scalars whose means are logged, or none if the step
        was skipped because a scalar was not finite."""

    @abstractmethod
    def evaluate(self, step: int) -> dict[str, float]:
        """Measure the networks after `step` steps, when a checkpoint is written."""

    def spikes(
        self, step: int, loss: Tensor, losses: dict[str, Tensor], norm: Tensor | None = None
    ) -> bool:
        """Whether to skip a step because its loss or gradient spikes. With a guard, the gradient's
        norm is added to the losses. If a loss of a skipped step is not finite on some worker, all
        losses of the step are removed.

        Args:
            norm: of the gradient; None to compute it.
        """
        if self.guard is None:
            return False
        norm = total_norm(self.model) if norm is None else norm
        watched = mean_over_workers({"loss": loss, "gradient_norm": norm}, self.ranks)
        if not self.guard.skips(step, watched):
            losses["gradient_norm"] = norm
            return False
        if not all(map(math.isfinite, mean_over_workers(losses, self.ranks).values())):
            losses.clear()
        return True

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in self._saved()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self._saved():
            getattr(self, name).load_state_dict(state[name])

    def _saved(self) -> tuple[str, ...]:
        return (*self.saved, "guard") if self.guard else self.saved


@dataclass(frozen=True)
class Workers:
    """The number of data-parallel workers of a training, and the resources of each."""

    count: int
    cpus: int
    use_gpu: bool
    max_failures: int  # restarts after a worker is lost
    elastic: bool = False  # whether another number of workers may resume the training

    @classmethod
    def of(cls, ray: Ray, count: int) -> "Workers":
        return cls(count, ray.cpus_per_worker, ray.use_gpu, ray.max_failures, ray.elastic)

    @property
    def columns(self) -> dict[str, float]:
        """The columns of the history about the workers, where their number may change."""
        return {"workers": self.count, "cpus_per_worker": self.cpus} if self.elastic else {}

    def needs(self, folder: Path) -> Needs:
        """The resources that each training needs as a trial of Ray Tune.

        Args:
            folder: of Ray Tune's own files.
        """
        return Needs(self.count, self.resources, self.max_failures, folder, self.under_ray_train)

    @property
    def under_ray_train(self) -> bool:
        """Whether Ray Train runs the workers, or a single one trains in this process."""
        return self.count > 1 or self.elastic

    @property
    def resources(self) -> dict[str, float]:
        """The Ray resources of each worker."""
        cpus: dict[str, float] = {"CPU": self.cpus}
        return cpus | ({"GPU": 1} if self.use_gpu else {})


@dataclass(frozen=True, kw_only=True)
class Training(ABC):
    """The description of a training, as values that are sent to its workers."""

    section: ClassVar[str]  # of the params, with `steps` and `checkpoint_every`

    name: str  # in messages
    params: Params
    seed: int
    folder: Path  # its run directory, absolute
    workers: Workers
    log: RunLog | None = None  # gets each new row of the history

    @property
    def steps(self) -> int:
        return getattr(self.params, self.section).steps

    @property
    def every(self) -> int:
        """Steps between checkpoints."""
        return getattr(self.params, self.section).checkpoint_every

    @abstractmethod
    def task(self, ranks: Ranks, device: torch.device) -> Task:
        """Build the task of a worker on its device."""

    def finish(self, state: dict[str, Any], seconds: float) -> Any:
        """Save the training's results besides checkpoints. Returns what `run_training` returns.

        Args:
            state: {task, step, history, run}: the last checkpoint.
            seconds: that the training took since it was last resumed.
        """
        return state

    @property
    def run(self) -> str:
        """The last two parts of the folder's path. A checkpoint of another run is refused by this
        name."""
        return Path(*self.folder.parts[-2:]).as_posix()

    @property
    def folders(self) -> list[Path]:
        return [self.folder]

    @property
    def run_dir(self) -> Path:
        """The folder of the checkpoints: the run's name and storage path under Ray Train."""
        return self.folder / "train" if self.workers.under_ray_train else self.folder
