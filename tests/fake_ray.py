"""What stands for Ray and its workers, in this process, and what they make."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch

from pipeline.runtime import workers as module
from pipeline.runtime.batches import Alone, Maker, write_files
from pipeline.runtime.errors import UserError
from tests.tiny_project import CPU, with_params


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class FakeRay:
    """Ray in this process: what is asked is done when somebody waits, once all have started, and
    the latest first. What travels is pickled.

    Args:
        lost: how many answers are those of workers that were lost.
        dead: how many of the first workers are lost, all with their node.
        deadly: the name of a batch at which every worker is lost.
    """

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, lost: int = 0, dead: int = 0, deadly: str = ""):
        self.lost, self.dead, self.deadly = lost, dead, deadly
        self.started, self.killed, self.made = [], [], []

    def put(self, value: Any) -> bytes:
        return cloudpickle.dumps(value)

    def remote(self, kind: type) -> Any:
        def start(*args: Any) -> Any:
            self.started.append(args)
            return _Handle(kind(*args), self, len(self.started))

        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=start))

    def wait(self, answers: list, num_returns: int) -> tuple[list, list]:
        first = min(answers, key=lambda answer: answer.__name__ == "make")
        chosen = answers[-1] if first.__name__ == "make" else first
        return [chosen], [answer for answer in answers if answer is not chosen]

    def get(self, answer: Callable[[], Any]) -> Any:
        return answer()

    def kill(self, worker: Any) -> None:
        self.killed.append(worker)


class _Handle:
    def __init__(self, worker: Any, ray: FakeRay, number: int):
        self._worker, self._ray, self._dies = worker, ray, number <= ray.dead

    def __getattr__(self, name: str) -> Any:
        def ask(*args: Any) -> Callable[[], Any]:
            def answer() -> Any:
                if name == "make":
                    with args[2].opened() as (path, _):
                        self._ray.made.append((id(self._worker), path.name))
                    if self._ray.lost or self._dies or path.name == self._ray.deadly:
                        self._ray.lost -= bool(self._ray.lost and not self._dies)
                        raise RayError("the worker died\nat length")
                there = (cloudpickle.loads(x) if isinstance(x, bytes) else x for x in args)
                return getattr(self._worker, name)(*there)

            answer.__name__ = name
            return answer

        return SimpleNamespace(remote=ask)


def put_in_rays_place(monkeypatch: pytest.MonkeyPatch, ray: FakeRay) -> FakeRay:
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(module, "join_ray", lambda: None)
    monkeypatch.setattr(module, "require_resources", lambda *needs: None)
    return ray


def ray_params(workers: int):
    own = {"num_workers": workers, "max_failures": 2}
    size = {"batch_size": 2 * workers}
    return with_params(ray=own, training=size, tokenizer=size, classifier=size).ray


class Squares:
    """Opened once a process; makes the squares of a range."""

    opened = 0

    def __init__(self, power: int, device: torch.device):
        assert device == CPU
        self.power = power
        Squares.opened += 1

    def __call__(self, start: int, stop: int) -> np.ndarray:
        if start > 90:
            raise UserError("no number is that large; use a smaller one")
        return np.arange(start, stop) ** self.power


BATCHES = [(start, min(start + 4, 22)) for start in range(0, 22, 4)]


def squares(path: Path, workers: Alone, batches=BATCHES) -> np.ndarray:
    write_files({path: batches}, workers, Maker(Squares, 2), "squares")
    return np.load(path)
