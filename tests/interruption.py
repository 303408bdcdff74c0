"""Training that is killed and resumed."""

import io
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import nn

from pipeline.data.ranks import ALONE, Ranks
from pipeline.training.loop.checkpoints import RunDirCheckpoints
from pipeline.training.loop.training import Task, Training, Workers, train

History = list[dict[str, float]]
ONE = Workers(1, cpus=1, use_gpu=False, max_failures=0)


@dataclass(frozen=True, kw_only=True)
class Toy(Training):
    """Settings for `fit`, which trains a task that a test has made."""

    section = "toy"

    def task(self, ranks, device):
        raise NotImplementedError


class Killed(BaseException):
    """A process that dies."""


class KilledAfter(RunDirCheckpoints):
    """Dies right after its k-th checkpoint is written."""

    def __init__(self, folder: Path, k: int):
        super().__init__(folder)
        self.left = k

    def save(self, state):
        super().save(state)
        self.left -= 1
        if not self.left:
            raise Killed


def fit(
    task: Task,
    checkpoints: RunDirCheckpoints,
    steps: int = 11,
    every: int = 3,
    ranks: Ranks = ALONE,
    log: Any = None,
) -> History:
    """Train a task and return its history."""
    folder = checkpoints.path.parent
    params: Any = SimpleNamespace(toy=SimpleNamespace(steps=steps, checkpoint_every=every))
    toy = Toy(name="toy", params=params, seed=7, folder=folder, workers=ONE, log=log)
    task.ranks = ranks
    return train(toy, task, checkpoints)["history"]


def cut(path: Path) -> None:
    """Cut off the end of a checkpoint."""
    path.write_bytes(path.read_bytes()[:-100])


def weight_bytes(module: nn.Module | dict) -> bytes:
    state = module if isinstance(module, dict) else module.state_dict()
    buffer = io.BytesIO()
    for name in sorted(state):
        buffer.write(name.encode() + state[name].detach().contiguous().numpy().tobytes())
    return buffer.getvalue()
