"""Training that is killed, and taken up again."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from pipeline.training.loop import RunDirSession, Task, train

History = list[dict[str, float]]


class Killed(BaseException):
    """A process that dies."""


class KilledAfter(RunDirSession):
    """Dies right after its k-th checkpoint is on disk."""

    def __init__(self, folder, k: int):
        super().__init__(folder)
        self.left = k

    def save(self, state, row):
        super().save(state, row)
        self.left -= 1
        if not self.left:
            raise Killed


def fit(task, session, steps=11, every=3):
    return train(task, name="toy", run="toy", steps=steps, every=every, seed=7, session=session)


def weight_bytes(module: nn.Module | dict) -> bytes:
    state = module if isinstance(module, dict) else module.state_dict()
    buffer = io.BytesIO()
    for name in sorted(state):
        buffer.write(name.encode() + state[name].detach().contiguous().numpy().tobytes())
    return buffer.getvalue()


def straight_and_resumed(
    make_task: Callable[[], Task], folder: Path, steps: int, every: int
) -> tuple[tuple[Task, History], tuple[Task, History]]:
    """A task trained without a break, and one taken up after the first checkpoint of a killed run;
    each with its history."""
    straight = make_task()
    history = fit(straight, RunDirSession(folder / "straight"), steps, every)
    with pytest.raises(Killed):
        fit(make_task(), KilledAfter(folder / "killed", 1), steps, every)
    resumed = make_task()
    again = fit(resumed, RunDirSession(folder / "killed"), steps, every)
    return (straight, history), (resumed, again)


def assert_same(one: dict, other: dict) -> None:
    """Two trainings ended alike: every row, and the bytes of every weight."""
    assert one["history"] == other["history"]
    assert weight_bytes(one["task"]["model"]) == weight_bytes(other["task"]["model"])
