"""One training, as plain values that travel to its workers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.config.schema import Ray
from pipeline.data.ranks import Ranks
from pipeline.runtime.trials import Needs
from pipeline.training.loop.train import Task

Recipe = Callable[[Ranks, torch.device], Task]


@dataclass(frozen=True)
class Workers:
    """The data-parallel workers of a training: how many, and what each occupies."""

    count: int
    cpus: int
    use_gpu: bool
    max_failures: int  # restarts after one is lost
    elastic: bool = False  # others, as many as there are then, may go on with the training

    @classmethod
    def of(cls, ray: Ray, count: int) -> "Workers":
        return cls(count, ray.cpus_per_worker, ray.use_gpu, ray.max_failures, ray.elastic)

    @property
    def named(self) -> dict[str, float]:
        """The columns of a training's history about them; empty unless `ray.elastic`, since the
        params fix their number otherwise."""
        return {"workers": self.count, "cpus_per_worker": self.cpus} if self.elastic else {}

    def needs(self, folder: Path) -> Needs:
        """What each of several trainings occupies that are trials, one beside the other.

        Args:
            folder: as `Needs` has it.
        """
        return Needs(self.count, self.resources, self.max_failures, folder, self.under_ray_train)

    @property
    def under_ray_train(self) -> bool:
        """Whether they are a run of Ray Train: a single worker that nobody replaces trains in its
        own process, whose checkpoints lie elsewhere."""
        return self.count > 1 or self.elastic

    @property
    def resources(self) -> dict[str, float]:
        """Of each, as Ray names them."""
        cpus: dict[str, float] = {"CPU": self.cpus}
        return cpus | ({"GPU": 1} if self.use_gpu else {})


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The description of a training, which every worker gets. Paths are absolute."""

    name: str  # in messages
    recipe: Recipe  # builds a worker's task on its device; importable, or of importable parts
    steps: int
    every: int  # steps between checkpoints
    seed: int
    folder: str  # its own, of its checkpoints
    workers: Workers

    @property
    def run(self) -> str:
        """The last two parts of the folder; stored in each checkpoint, so that one that was copied
        from another run is refused."""
        return Path(*Path(self.folder).parts[-2:]).as_posix()

    @property
    def folders(self) -> list[Path]:
        return [Path(self.folder)]

    @property
    def run_dir(self) -> Path:
        """Where its checkpoints lie; its name and storage path, if it is a Ray Train run."""
        return Path(self.folder, "train") if self.workers.under_ray_train else Path(self.folder)
