"""Measuring many batches by several workers, with the same result as by one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

Batch = TypeVar("Batch")


class Share(NamedTuple):
    """A worker's share of the batches: each `workers`-th one, from the `rank`-th on."""

    rank: int = 0
    workers: int = 1
    total: Callable[[Tensor], Tensor] = lambda values: values  # (n,), added up over the workers


ALL = Share()


def sum_over(
    batches: Sequence[Batch], measure: Callable[[int, Batch], float], share: Share
) -> float:
    """Sum of measure(number, batch), for each batch by one of the workers; all get it. It is added
    up in the order of the batches, so that its last bit is that of a single worker."""
    values = torch.zeros(len(batches), dtype=torch.float64)
    for number in range(share.rank, len(batches), share.workers):
        values[number] = measure(number, batches[number])
    return in_order(share.total(values))


def batch_sum(measure: Callable[[Share], object], number: int, batches: int) -> Tensor:
    """What a measure that adds up by `sum_over` finds in one of its batches, (1,) float64: that is
    the share of one of as many workers as there are batches.

    Args:
        measure: adds up over the batches of a share.
    """
    found = []

    def note(values: Tensor) -> Tensor:
        found.append(values[number : number + 1])
        return values

    measure(Share(number, batches, note))
    return found[0]


def in_order(values: Tensor) -> float:
    """Sum of values (n,), one after the other: other orders, and Python's `sum`, may round
    otherwise."""
    total = 0.0
    for value in values.tolist():
        total += value
    return total
