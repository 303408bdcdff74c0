"""Writing checkpoints while training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import Tensor


class Behind:
    """Runs functions in a thread, one at a time: whoever gives it another waits for the one before,
    so that no more than one checkpoint is in memory."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._running: Future | None = None

    def __call__(self, function: Callable[..., None], *arguments: Any) -> None:
        """Begin function(*arguments).

        Raises:
            Exception: what the function before raised.
        """
        self.settle()
        self._running = self._pool.submit(function, *arguments)

    def settle(self) -> None:
        """Wait until nothing runs.

        Raises:
            Exception: what the last function raised.
        """
        running, self._running = self._running, None
        if running is not None:
            running.result()


def snapshot(state: Any) -> Any:
    """A copy of a state in the processor's memory, which the next step does not change."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(snapshot(value) for value in state)
    return state
