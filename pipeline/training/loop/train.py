"""The training loop. The randomness of every step is a function of (seed, step), so that a run that
was killed, and resumed from its last checkpoint, ends with the same bytes as one that was not."""

from collections import Counter
from math import nan
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.data.ranks import ALONE, Ranks
from pipeline.data.seeds import mix
from pipeline.runtime.errors import PassingError, UserError
from pipeline.runtime.progress import progress
from pipeline.training.loop.divergence import CHECK_EVERY, mean_over_workers, require_finite
from pipeline.training.loop.training import Task, Training

State = dict[str, Any]


class Checkpoints(Protocol):
    """Where a training's checkpoints are stored: a run directory, or Ray Train's storage."""

    def load(self) -> State | None:
        """The last checkpoint, or None."""

    def save(self, state: State, row: dict[str, float]) -> None:
        """Begin to write a checkpoint, whole or not at all, while training continues. Raises a
        `UserError` if the one before could not be written.

        Args:
            row: the newest of the history.
        """

    def wait(self) -> None:
        """Wait until the last checkpoint is written; raises a `UserError` if it could not be."""


def train(training: Training, task: Task, checkpoints: Checkpoints, ranks: Ranks = ALONE) -> State:
    """Train a worker's task from the last checkpoint to the training's last step.

    Returns:
        The final state {task, step, history, run}. The history has a row of averaged losses and
        measurements for each checkpoint.

    Raises:
        Diverged: a loss, a measurement or a weight is not finite; the last checkpoint stays.
        UserError: the last checkpoint is another run's.
    """
    state = _begin(training, task, checkpoints, ranks)
    name, seed = training.name, training.seed
    start = saved = state["step"]
    steps, every = training.steps, training.every
    sums: dict[str, Tensor] = {}
    counts = Counter[str]()  # of steps that have the loss: a discriminator begins later
    unchecked: dict[str, Tensor] = {}
    first = ranks.rank == 0
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
                    # The mean over the workers is not finite if the loss of one of them is not.
                    require_finite(name, saved, mean_over_workers(unchecked, ranks))
                    unchecked = {}
                if not logs:
                    continue
                means = {key: float(value) / counts[key] for key, value in sums.items()}
                row = {"step": step + 1} | mean_over_workers(means, ranks)
                torch.manual_seed(mix(seed, "evaluate", step))
                row |= training.workers.columns | task.evaluate(step + 1)
                row |= {"skipped_steps": task.guard.skipped} if task.guard else {}
                found = {f"{key} after step {step + 1}": value for key, value in row.items()}
                if not means:  # every step was skipped
                    found = {f"the loss of every step after step {saved}": nan}
                require_finite(name, saved, found, task)
                history = [*state["history"], row]
                state = state | {"task": task.state_dict(), "step": step + 1, "history": history}
                if first and training.log:  # before saving: a row that comes again is logged once
                    training.log.log_training(row)
                checkpoints.save(state, row)
                bar(step + 1, "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "step"))
                sums, counts, saved = {}, Counter(), step + 1
    finally:
        checkpoints.wait()
    return state


def _begin(training: Training, task: Task, checkpoints: Checkpoints, ranks: Ranks) -> State:
    """Load the last checkpoint, if there is one, into a task; return the state to train from."""
    name, folder = training.name, training.run_dir
    state = checkpoints.load()
    step = 0 if state is None else state["step"]
    if mean_over_workers({"step": step}, ranks)["step"] != step:  # networks would differ
        reason = f"its workers do not find the same checkpoint in {folder}"
        raise PassingError(name, reason, "run again when all of them see the same files")
    history: list[dict[str, float]] = []
    if state is not None:
        if state["run"] != training.run:  # somebody copied it
            reason = f"the checkpoint in {folder} is {state['run']}'s and not {training.run}'s"
            raise UserError(name, reason, f"delete {folder} to train from the start")
        task.load_state_dict(state["task"])
        history = state["history"]
        if ranks.rank == 0 and step < training.steps:
            print(f"{name}: going on from step {step} of {training.steps}", flush=True)
    return {"task": task.state_dict(), "step": step, "history": history, "run": training.run}
