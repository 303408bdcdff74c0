"""The training loop. The randomness of every step is a function of (seed, step), so that a run that
was killed, and went on from its last checkpoint, ends with the same bytes as one that was not."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.data.seeds import mix
from pipeline.runtime.errors import PassingError, UserError
from pipeline.runtime.progress import progress
from pipeline.training.loop.finite import FiniteLosses


class Task(Protocol):
    """Something to train, with its models and optimizers."""

    def step(self, step: int) -> dict[str, Tensor]:
        """One optimisation step; returns scalar tensors to average into the log, none of a step
        that was left out because they are not finite."""

    def evaluate(self, step: int) -> dict[str, float]:
        """Measurements at a logging point, after `step` steps."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Session(Protocol):
    """The keeper of a loop's state: a run directory, or Ray Train."""

    rank: int
    folder: Path  # of the checkpoints
    who: Mapping[str, float]  # what each row says of the workers, where others may go on

    def average(self, row: dict[str, float]) -> dict[str, float]:
        """Mean of each value over all workers, the same on every one."""

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, or None."""

    def save(self, state: dict[str, Any], row: dict[str, float]) -> None:
        """Begin to keep a checkpoint, whole or not at all, and report the newest row of the
        history. Training goes on meanwhile, and waits for this one at the next.

        Raises:
            UserError: the one before could not be kept.
        """

    def settle(self) -> None:
        """Wait until the last checkpoint is kept.

        Raises:
            UserError: it could not be.
        """


def train(
    task: Task, *, name: str, run: str, steps: int, every: int, seed: int, session: Session
) -> list[dict[str, float]]:
    """Train from the session's checkpoint to `steps`.

    Args:
        name: names the training in messages.
        run: names the run; a checkpoint of another one is refused.
        every: steps between checkpoints; the history has a row for each.

    Returns:
        The history: a row of averaged losses and measurements for each checkpoint.

    Raises:
        Diverged: a loss, a measurement or a weight is not finite; the last checkpoint stays.
        UserError: the last checkpoint is another run's.
    """
    start, history = _begin(task, name, run, steps, session)
    sums: dict[str, Tensor] = {}
    counts = Counter[str]()  # of steps that have it: a discriminator begins later
    finite = FiniteLosses(session, name, start)
    with progress(name, start, steps, enabled=session.rank == 0) as bar, settled(session):
        for step in range(start, steps):
            torch.manual_seed(mix(seed, "step", step, session.rank))  # dropout
            losses = task.step(step)
            finite.note(step, losses)
            for key, value in losses.items():
                sums[key] = sums.get(key, 0) + value.detach()
                counts[key] += 1
            if (step + 1) % every and step + 1 < steps:
                continue
            finite.check()
            means = {key: float(value) / counts[key] for key, value in sums.items()}
            row = {"step": step + 1} | session.average(means) | dict(session.who)
            torch.manual_seed(mix(seed, "evaluate", step))
            row |= task.evaluate(step + 1)
            finite.require_row(task, means, row)
            history = [*history, row]
            session.save(
                {"task": task.state_dict(), "step": step + 1, "history": history, "run": run}, row
            )
            bar(step + 1, _text(row))
            sums, counts, finite.saved = {}, Counter(), step + 1
    return history


@contextmanager
def settled(session: Session) -> Iterator[None]:
    """However the block ends, the last checkpoint is saved then."""
    try:
        yield
    finally:
        session.settle()


def _begin(
    task: Task, name: str, run: str, steps: int, session: Session
) -> tuple[int, list[dict[str, float]]]:
    """Load the session's checkpoint into a task; return its step and history."""
    state = session.load()
    step = 0 if state is None else state["step"]
    if session.average({"step": step})["step"] != step:  # they would train different networks
        reason = f"its workers do not find the same checkpoint in {session.folder}"
        raise PassingError(name, reason, "run again when all of them see the same files")
    if state is None:
        return 0, []
    if state["run"] != run:  # somebody has copied it
        reason = f"the checkpoint in {session.folder} is {state['run']}'s and not {run}'s"
        raise UserError(name, reason, f"delete {session.folder} to train from the start")
    task.load_state_dict(state["task"])
    if session.rank == 0 and step < steps:
        print(f"{name}: going on from step {step} of {steps}", flush=True)
    return step, state["history"]


def _text(row: dict[str, float]) -> str:
    return "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "step")
