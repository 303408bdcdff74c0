"""The uncertainty of metrics of one set of images: their spread over halves of the set, and the FID
of infinitely many samples."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from pipeline.data.seeds import generator
from pipeline.evaluation.fid import SAMPLES, Statistics, TooFew, fid

SIZES = 10  # numbers of samples that FID∞ is extrapolated from
DRAWS = 3  # subsets of each


def spreads(
    metrics: Callable[[Tensor], Mapping[str, float | None]],
    labels: Tensor,
    *,
    repeats: int,
    seed: int,
) -> dict[str, float | None]:
    """Estimate the standard deviation of each metric over fresh sets of M samples, from random
    halves of one set (the delete-half jackknife of Shao & Wu 1989).

    The mean of a half that is drawn without replacement deviates from the mean of the set as much
    as the mean of the set deviates from the truth. So no factor is needed for a metric that uses
    every row that it is given. (Where a metric uses a part of a set, halve that part.) No sample is
    drawn twice, which would break the nearest neighbours of precision and recall, and each half has
    half of every class.

    Args:
        metrics: maps indices (m,) of the set to values by name; None where they are too few.
        labels: (M,), the class of each sample.
        repeats: halves drawn, at least 2.

    Returns:
        Each as `<name>_std`; None where a half is too small for the metric.
    """
    draws = generator(seed, "halves")
    halves = [_subset(labels, len(labels) // 2, draws) for _ in range(repeats)]
    measured = [metrics(half) for half in halves]
    return {f"{name}_std": _deviation([of[name] for of in measured]) for name in measured[0]}


def _deviation(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) == len(values) else None


def fid_infinity(samples: Tensor, labels: Tensor, reference: Statistics, *, seed: int) -> float:
    """FID∞ (Chong & Forsyth 2020). The bias of FID falls as 1/M with the number of samples M, so a
    line is fitted to the FIDs of smaller sets against 1/M, and its value at 0 is returned.

    Args:
        samples: features (M, F).
        labels: (M,), the class of each sample; subsets have the proportions of the whole.

    Raises:
        TooFew: a quarter of the samples is too few for a covariance.
    """
    count, dimensions = samples.shape
    if count // 4 <= dimensions:
        raise TooFew(
            "FID∞",
            f"{count} {SAMPLES} are too few to extrapolate from with {dimensions}-dimensional "
            "features",
            f"use at least {4 * (dimensions + 1)}",
        )
    draws = generator(seed, "fid_infinity")
    sizes = np.linspace(count // 4, count, SIZES).round().astype(int)
    sets = [_subset(labels, size, draws) for size in sizes for _ in range(DRAWS)]
    values = [fid(samples[rows], reference) for rows in sets]
    return float(np.polyfit([1 / len(rows) for rows in sets], values, deg=1)[1])


def disjoint(labels: Tensor, size: int, *, seed: int) -> Iterator[Tensor]:
    """All disjoint sets of `size` indices (size,), each with the proportions of the whole."""
    order = _by_class(labels, generator(seed, "disjoint"))
    count = len(labels) // size
    for number in range(count):
        yield _evenly(order[number::count], size, start=0.5)


def _subset(labels: Tensor, size: int, draws: torch.Generator) -> Tensor:
    """Indices (size,) of a random subset with the proportions of the whole (to one a class)."""
    start = torch.rand((), generator=draws, dtype=torch.float64).item()
    return _evenly(_by_class(labels, draws), size, start)


def _by_class(labels: Tensor, draws: torch.Generator) -> Tensor:
    """All indices (M,), class by class, in random order within each."""
    order = torch.randperm(len(labels), generator=draws)
    return order[labels[order].argsort(stable=True)]


def _evenly(order: Tensor, size: int, start: float) -> Tensor:
    """`size` of the indices, evenly spaced, in ascending order; `start` in [0, 1) shifts them."""
    positions = (torch.arange(size, dtype=torch.float64) + start) * (len(order) / size)
    return order[positions.long()].sort().values
