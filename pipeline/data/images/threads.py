"""Work on many pictures in parallel: Pillow decodes, resizes and encodes without Python's lock."""

import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from pipeline.runtime.process import cores

QUICK = 5e-4  # seconds for an item; below, threads wait longer for Python's lock than they save
Item = TypeVar("Item")
Result = TypeVar("Result")


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`[function(item) for item in items]`, in one thread per core; without threads if there is one
    core or the first item takes less than `QUICK`."""
    items = list(items)
    started = time.perf_counter()
    first = [function(item) for item in items[:1]]
    threads = cores()
    if threads == 1 or time.perf_counter() - started < QUICK:
        return first + [function(item) for item in items[1:]]
    share = max(1, math.ceil((len(items) - 1) / threads))
    shares = [items[start : start + share] for start in range(1, len(items), share)]
    results = _pool(threads).map(lambda chosen: [function(item) for item in chosen], shares)
    return first + [result for done in results for result in done]
