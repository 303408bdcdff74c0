"""How far a metric of one set of images can be trusted: its spread over halves of the set, and the
FID that infinitely many samples would have."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from pipeline.data.seeds import generator
from pipeline.evaluation.fid import fid
from pipeline.evaluation.statistics import SAMPLES, ReferenceStatistics, TooFew

SIZES = 10  # numbers of samples that FID∞ is extrapolated from
DRAWS = 3  # subsets of each


def spreads(
    metrics: Callable[[Tensor], Mapping[str, float | None]],
    labels: Tensor,
    *,
    repeats: int,
    seed: int,
) -> dict[str, float | None]:
    """Standard deviation that each metric of M samples would have over fresh sets of M, from random
    halves of the one set (the delete-half jackknife of Shao & Wu 1989).

    A mean over half of the samples, drawn without replacement, deviates from the mean over all of
    them as that one does from the truth; hence no factor, for a metric that uses every row that it
    is given. (Where it uses a part of a set, that part is the set to halve.) No sample is drawn
    twice, which the nearest neighbours of precision and recall would not stand, and each half has
    half of every class, since they are drawn class by class.

    Args:
        metrics: indices (m,) into the set → values by name; None where they are too few.
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


def fid_infinity(
    samples: Tensor, labels: Tensor, reference: ReferenceStatistics, *, seed: int
) -> float:
    """FID∞ (Chong & Forsyth 2020): FID has a bias that falls as 1/M with the number of samples M;
    a line through the FIDs of smaller sets, against 1/M, is read off at 0.

    Args:
        samples: features (M, F).
        labels: (M,), the class of each sample; every subset is balanced as the whole is.

    Raises:
        TooFew: a quarter of the samples is too few for a covariance.
    """
    count, dimensions = samples.shape
    if count // 4 <= dimensions:
        raise TooFew(
            f"FID∞: {count} {SAMPLES} are too few to extrapolate from with {dimensions}-"
            f"dimensional features; use at least {4 * (dimensions + 1)}"
        )
    draws = generator(seed, "fid_infinity")
    sizes = np.linspace(count // 4, count, SIZES).round().astype(int)
    sets = [_subset(labels, size, draws) for size in sizes for _ in range(DRAWS)]
    values = [fid(samples[rows], reference) for rows in sets]
    return float(np.polyfit([1 / len(rows) for rows in sets], values, deg=1)[1])


def disjoint(labels: Tensor, size: int, *, seed: int) -> Iterator[Tensor]:
    """As many disjoint sets of `size` indices (size,) as there are, each balanced as the whole."""
    order = _by_class(labels, generator(seed, "disjoint"))
    count = len(labels) // size
    for number in range(count):
        yield _evenly(order[number::count], size, start=0.5)


def _subset(labels: Tensor, size: int, draws: torch.Generator) -> Tensor:
    """Indices (size,) of a random subset, balanced as the whole is (to one sample a class)."""
    start = torch.rand((), generator=draws, dtype=torch.float64).item()
    return _evenly(_by_class(labels, draws), size, start)


def _by_class(labels: Tensor, draws: torch.Generator) -> Tensor:
    """All indices (M,), class by class, in random order within each."""
    order = torch.randperm(len(labels), generator=draws)
    return order[labels[order].argsort(stable=True)]


def _evenly(order: Tensor, size: int, start: float) -> Tensor:
    """`size` of the indices, evenly spaced, in ascending order; `start` in [0, 1) shifts them."""
    places = (torch.arange(size, dtype=torch.float64) + start) * (len(order) / size)
    return order[places.long()].sort().values
