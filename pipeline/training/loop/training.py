"""Defines a training run (settings, workers, and each worker's task) and the training loop. Random
draws of a step depend only on (seed, step), so a run that resumes from a checkpoint after a kill
gives the same bytes as an uninterrupted run."""

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.schema import Ray
from pipeline.data.ranks import ALONE, Ranks
from pipeline.data.seeds import mix
from pipeline.runtime.progress import progress
from pipeline.runtime.run_log import RunLog
from pipeline.training.loop.checkpoints import RayTrainCheckpoints, RunDirCheckpoints, State
from pipeline.training.loop.divergence import CHECK_EVERY, mean_over_workers, require_finite


class Task(ABC):
    """A data-parallel worker's share of a training run: networks, optimizers and data."""

    saved: tuple[str, ...]  # attributes whose state dicts a checkpoint contains
    model: torch.nn.Module
    ranks: Ranks = ALONE

    @abstractmethod
    def step(self, step: int) -> dict[str, Tensor]:
        """Take an optimisation step. Returns scalar losses by name; their means are logged."""

    @abstractmethod
    def evaluate(self, step: int) -> dict[str, float]:
        """Measure the networks after `step` steps; called before each checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in self.saved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.saved:
            getattr(self, name).load_state_dict(state[name])


@dataclass(frozen=True)
class Workers:
    """The number of data-parallel workers of a training run, and the resources of each worker."""

    count: int
    cpus: int
    use_gpu: bool
    max_failures: int  # maximum restarts after lost workers
    elastic: bool = False  # whether a different number of workers may resume the run

    @classmethod
    def of(cls, ray: Ray, count: int) -> "Workers":
        return cls(count, ray.cpus_per_worker, ray.use_gpu, ray.max_failures, ray.elastic)

    @property
    def under_ray_train(self) -> bool:
        """Whether Ray Train runs the workers; if not, this process is the only worker."""
        return self.count > 1 or self.elastic

    @property
    def resources(self) -> dict[str, float]:
        cpus: dict[str, float] = {"CPU": self.cpus}
        return cpus | ({"GPU": 1} if self.use_gpu else {})


@dataclass(frozen=True, kw_only=True)
class Training(ABC):
    """The picklable settings of a training run, which are sent to the workers."""

    section: ClassVar[str]  # params section with `steps` and `checkpoint_every`

    name: str  # name of the training run in messages
    params: Params
    seed: int
    folder: Path  # absolute path of the run directory
    workers: Workers
    log: RunLog | None = None  # MLflow run that logs each new row of the history

    @abstractmethod
    def task(self, ranks: Ranks, device: torch.device) -> Task:
        """Build the task of one data-parallel worker, on the worker's device."""

    def finish(self, state: dict[str, Any], seconds: float) -> Any:
        """Save results other than checkpoints. `run_training` returns this method's return value.
        `state` is the final {task, step, history}; `seconds` counts from the last (re)start."""
        return state

    @property
    def folders(self) -> list[Path]:
        return [self.folder]

    @property
    def run_dir(self) -> Path:
        """The checkpoints' folder. Its path determines Ray Train's run name and storage path."""
        return self.folder / "train" if self.workers.under_ray_train else self.folder


def train(
    training: Training, task: Task, checkpoints: RunDirCheckpoints | RayTrainCheckpoints
) -> State:
    """Train a worker's task from the last checkpoint to the last step. Returns the final state
    {task, step, history}. The history has a row of losses and measurements for each checkpoint.

    Raises:
        Diverged: a loss, a measurement or a weight is not finite; the last checkpoint is kept.
    """
    name, seed, workers = training.name, training.seed, training.workers
    settings, first = getattr(training.params, training.section), task.ranks.rank == 0
    steps, every, ranks = settings.steps, settings.checkpoint_every, task.ranks
    state = checkpoints.load() or {"step": 0, "history": []}
    start = saved = state["step"]
    if "task" in state:
        task.load_state_dict(state["task"])
        if first and start < steps:
            print(f"{name}: resuming from step {start} of {steps}", flush=True)
    state["task"] = task.state_dict()  # frees the loaded tensors
    sums: dict[str, Tensor] = {}
    counts = Counter[str]()  # steps with each loss; the discriminator's loss starts later
    unchecked: dict[str, Tensor] = {}
    try:
        with progress(name, start, steps, enabled=first) as bar:
            for step in range(start, steps):
                torch.manual_seed(mix(seed, "step", step, ranks.rank))  # dropout
                losses = {key: loss.detach() for key, loss in task.step(step).items()}
                for key, loss in losses.items():
                    unchecked[f"{key} of step {step + 1}"] = loss
                    sums[key] = sums.get(key, 0) + loss
                    counts[key] += 1
                logs = (step + 1) % every == 0 or step + 1 == steps
                if logs or (step + 1 - start) % CHECK_EVERY == 0:
                    # The mean over the workers is finite only if all workers' losses are finite.
                    require_finite(name, saved, mean_over_workers(unchecked, ranks))
                    unchecked = {}
                if not logs:
                    continue
                means = {key: float(value) / counts[key] for key, value in sums.items()}
                row = {"step": step + 1} | mean_over_workers(means, ranks)
                torch.manual_seed(mix(seed, "evaluate", step))
                if workers.elastic:  # the number of workers may change
                    row |= {"workers": workers.count, "cpus_per_worker": workers.cpus}
                row |= task.evaluate(step + 1)
                found = {f"{key} after step {step + 1}": value for key, value in row.items()}
                require_finite(name, saved, found, task)
                history = [*state["history"], row]
                state = state | {"task": task.state_dict(), "step": step + 1, "history": history}
                if first and training.log:  # before saving: repeated rows are logged once
                    training.log.log_training(row)
                checkpoints.save(state)
                bar(step + 1, "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "step"))
                sums, counts, saved = {}, Counter(), step + 1
    finally:
        checkpoints.wait()
    return state
