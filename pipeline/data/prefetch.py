"""Computes results in advance, while earlier results are in use."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Prefetch:
    """Calls `load` for the next step in a thread, while the result of the current step is in use.

    Args:
        load: a pure function of the step; it draws random numbers from its own generators only.
    """

    def __init__(self, load: Callable[[int], Any]):
        self._load = load
        self._pool = ThreadPoolExecutor(1)
        self._ahead: dict[int, Future] = {}

    def __call__(self, step: int) -> Any:
        future = self._ahead.pop(step, None) or self._pool.submit(self._load, step)
        self._ahead = {step + 1: self._pool.submit(self._load, step + 1)}
        return future.result()
