"""Calls of libraries that wait without an end, given up when they are late."""

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

LOOK = 0.5  # seconds between looks at whether a call is late

Result = TypeVar("Result")


def unless_late(call: Callable[[], Result], late: Callable[[], bool]) -> Result:
    """The result of a call, in a thread that nobody waits for once it is late.

    Raises:
        TimeoutError: it is.
        BaseException: the call's own.
    """
    done: Future[Result] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    while not wait([done], LOOK).done:
        if late():
            raise TimeoutError
    return done.result()
