"""The training loop. The randomness of every step is a function of (seed, step), so that a run that
was killed, and went on from its last checkpoint, ends with the same bytes as one that was not."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pipeline.runtime.errors import PassingError, UserError
from pipeline.runtime.failures import lacks_memory
from pipeline.runtime.progress import progress
from pipeline.runtime.seeds import mix
from pipeline.training.loop.finite import (
    FiniteLosses,
    broken_network,
    require_finite,
    require_losses,
)


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
        name: names the run in messages.
        run: tells it from all others; only its own checkpoints are gone on from.
        every: steps between checkpoints; the history has a row for each.

    Returns:
        The history: a row of averaged losses and measurements for each checkpoint.

    Raises:
        UserError: a loss became NaN or infinite, and in which step; the checkpoint before that is
            kept. Or the last checkpoint is another run's, or another network's.
    """
    start, history = _begin(task, name, run, steps, session)
    sums: dict[str, Tensor] = {}
    counts = Counter[str]()  # of steps that have it: a discriminator begins later
    last, finite = start, FiniteLosses(session, name)
    with progress(name, start, steps, enabled=session.rank == 0) as bar, settled(session):
        for step in range(start, steps):
            torch.manual_seed(mix(seed, "step", step, session.rank))  # dropout
            losses = task.step(step)
            finite.note(step, losses, last)
            for key, value in losses.items():
                sums[key] = sums.get(key, 0) + value.detach()
                counts[key] += 1
            if (step + 1) % every and step + 1 < steps:
                continue
            finite.check(last)
            require_losses(sums, name, last, step + 1)
            means = {key: float(value) / counts[key] for key, value in sums.items()}
            row = {"step": step + 1} | session.average(means) | dict(session.who)
            torch.manual_seed(mix(seed, "evaluate", step))
            row |= task.evaluate(step + 1)
            require_finite(task, row, name, step + 1, last)
            history = [*history, row]
            session.save(
                {"task": task.state_dict(), "step": step + 1, "history": history, "run": run}, row
            )
            bar(step + 1, _text(row))
            sums, counts, last = {}, Counter(), step + 1
    return history


@contextmanager
def settled(session: Session) -> Iterator[None]:
    """However the block ends, the last checkpoint is kept then."""
    try:
        yield
    finally:
        session.settle()


def _begin(
    task: Task, name: str, run: str, steps: int, session: Session
) -> tuple[int, list[dict[str, float]]]:
    """Put a task where the session's checkpoint is; its step and history."""
    state = session.load()
    _require_same(session, 0 if state is None else state["step"], name)
    if state is None:
        return 0, []
    if state["run"] != run:
        raise UserError(_another(name, f"it is {state['run']}'s and not {run}'s", session.folder))
    _restore(task, state, name, steps, session.folder)
    if session.rank == 0 and state["step"] < steps:
        print(f"{name}: going on from step {state['step']} of {steps}", flush=True)
    return state["step"], state["history"]


def _require_same(session: Session, step: int, name: str) -> None:
    """Workers that go on from different steps would train different networks."""
    if session.average({"step": step})["step"] != step:
        raise PassingError(
            f"{name}: its workers do not find the same checkpoint in {session.folder}; run again "
            f"when all of them see the same files"
        )


def _restore(task: Task, state: dict[str, Any], name: str, steps: int, folder: Path) -> None:
    lengths = _lengths(task)
    try:
        task.load_state_dict(state["task"])
        why = _foreign(task, state["step"], steps)
        if not why and _lengths(task) != lengths:
            why = f"its learning rates are of {_lengths(task)} steps and not {lengths}"
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        if lacks_memory(error) or "CUDA error" in str(error):  # the device is the reason
            raise
        raise UserError(_another(name, " ".join(str(error).split())[:100], folder)) from error
    if why:
        raise UserError(_another(name, why, folder))


def _lengths(task: Task) -> list[int]:
    """The steps for which a task's schedules have learning rates, where they have an end."""
    parts = (part for part in vars(task).values() if isinstance(part, LRScheduler))
    return [part.total_steps for part in parts if hasattr(part, "total_steps")]


def _another(name: str, why: str, folder: Path) -> str:
    return (
        f"{name}: its checkpoint is another run's, or damaged ({why}); delete {folder} to train "
        f"it from the start"
    )


def _foreign(task: Task, step: int, steps: int) -> str | None:
    """What of a task's state, as it was loaded, cannot be that of the step."""
    if not 0 < step <= steps:
        return f"it is of step {step}, of {steps}"
    if broken := broken_network(task):
        return f"weights in {broken} are not finite"
    for name, part in vars(task).items():
        if isinstance(part, LRScheduler) and part.last_epoch != step:
            return f"its {name} is of step {part.last_epoch}, and it of {step}"
        if isinstance(part, Optimizer) and not all(
            value.shape == parameter.shape
            for parameter, state in part.state.items()
            for value in state.values()
            if isinstance(value, Tensor) and value.ndim
        ):
            return f"its {name} has other shapes than the weights"
    return None


def _text(row: dict[str, float]) -> str:
    return "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "step")
