"""Metrics of features and logits: Inception Score, KID, precision and recall (computed as by
torch-fidelity), density and coverage.

Precision, recall, density and coverage are our own code: no library has the last two, which need
the same distances, and torch-fidelity searches the reference's neighbours again for every set.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache, partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pipeline.data.seeds import generator, mix
from pipeline.evaluation.fid import Statistics, TooFew, fid

MANIFOLDS = ("precision", "recall", "density", "coverage")  # what `manifolds` returns
BLOCK = 1000  # samples whose distances to all the others are held at once
SIZES = 10  # numbers of samples that FID∞ is extrapolated from
DRAWS = 3  # subsets of each


def kid(samples: Tensor, reference: Tensor, *, subsets: int, subset_size: int, seed: int) -> float:
    """Kernel Inception Distance (Bińkowski 2018): unbiased squared MMD of features (M, F) and
    (R, F) under the kernel (x·y / F + 1)³, mean over random subsets.

    Raises:
        TooFew: a subset is larger than the sets.
    """
    from torch_fidelity.metric_kid import kernel_mmd

    _require("evaluation.kid_subset_size", subset_size, len(samples), len(reference))
    draw = np.random.RandomState(mix(seed, "kid") % 2**32)
    sides = (samples.numpy(), reference.numpy())  # torch's threads and NumPy's would take turns

    def subset(features: np.ndarray) -> np.ndarray:
        rows = draw.choice(len(features), subset_size, replace=False)
        return features[rows].astype(np.float64)

    return float(np.mean([kernel_mmd(*map(subset, sides)) for _ in range(subsets)]))


def inception_score(logits: Tensor, splits: int, seed: int) -> float:
    """Inception Score, exp E KL(p(y|x) ‖ p(y)), from logits (M, classes): the mean over `splits`
    random parts of the samples (M parts if M is smaller)."""
    count, splits = len(logits), min(splits, len(logits))
    order = np.random.RandomState(mix(seed, "is_splits") % 2**32).permutation(count)
    parts = (order[i * count // splits : (i + 1) * count // splits] for i in range(splits))
    return float(np.mean([_inception_score(logits[part].double()) for part in parts]))


def _inception_score(logits: Tensor) -> float:
    p, log_p = logits.softmax(dim=1), logits.log_softmax(dim=1)
    tiny = torch.finfo(torch.float64).tiny  # a class that has no probability at all adds none
    log_marginal = (p.sum(dim=0) / len(p)).clamp(min=tiny).log()
    return ((p * (log_p - log_marginal)).sum(dim=1).sum() / len(p)).exp().item()


def manifolds(samples: Tensor, reference: Tensor, neighbors: int) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi 2019), density and coverage (Naeem 2020) of features (M,
    F) against (R, F). Density (which may exceed 1) and coverage resemble precision and recall, but
    are robust to outliers. The ball of an image reaches to its k-th nearest neighbour in the same
    set.

    Raises:
        TooFew: fewer images than neighbours.
    """
    _require("evaluation.neighbors", neighbors + 1, len(samples), len(reference))
    radii_R, radii_M = _reference_radii(reference, neighbors), _radii(samples, neighbors)
    precise = hits = 0
    covered_R, recalled_R = torch.zeros(2, len(reference), dtype=torch.bool)
    for block, radii_B in zip(samples.split(BLOCK), radii_M.split(BLOCK), strict=True):
        distance_BR = torch.cdist(block, reference)
        inside_BR = distance_BR <= radii_R
        precise += int(inside_BR.any(dim=1).sum())
        hits += int(inside_BR.sum())
        covered_R |= inside_BR.any(dim=0)
        recalled_R |= (distance_BR <= radii_B[:, None]).any(dim=0)
    return {
        "precision": precise / len(samples),  # share of the samples in a ball of the reference's
        "recall": recalled_R.double().mean().item(),  # and of the reference in a sample's ball
        "density": hits / (neighbors * len(samples)),  # reference balls around a sample, over k
        "coverage": covered_R.double().mean().item(),  # reference balls that hold a sample
    }


def _radii(features: Tensor, neighbors: int) -> Tensor:
    """Distance (M,) of each row of features (M, F) to its k-th nearest other row."""
    blocks = features.split(BLOCK)
    # An image is its own nearest neighbour.
    distances = (torch.cdist(block, features).kthvalue(neighbors + 1, dim=1) for block in blocks)
    return torch.cat([distance.values for distance in distances])


# The reference is the same tensor, set after set; an evaluator has one for each of two extractors.
_reference_radii = lru_cache(maxsize=2)(_radii)


def drawn(features: Tensor, count: int, seed: int) -> Tensor:
    """At most `count` rows of features (M, F), drawn at random, in their order. The draw depends on
    M, `count` and the seed alone."""
    if len(features) <= count:
        return features
    chosen = torch.randperm(len(features), generator=generator(seed, "manifold", len(features)))
    return features[chosen[:count].sort().values]


drawn_reference = lru_cache(maxsize=2)(drawn)  # so that its neighbours are found once


def class_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of samples whose label (M,) has the highest of their logits (M, classes)."""
    return (logits.argmax(dim=1) == labels).double().mean().item()


def unless_few(metric: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """Compute a metric. Where the images are too few, print why (once), and return None."""
    try:
        return metric(*args, **settings)
    except TooFew as error:
        say_once(f"not measured: {error}")
        return None


say_once = cache(partial(print, flush=True))


def _require(key: str, needed: int, samples: int, reference: int) -> None:
    """Raise a `TooFew` unless there are as many samples and reference images as a param needs."""
    if needed > min(samples, reference):
        reason = f"{samples} samples and {reference} reference images are too few for it"
        raise TooFew(key, reason, f"lower it, or use at least {needed} of both")


# The uncertainty of metrics of one set of images


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
    measured = [metrics(_subset(labels, len(labels) // 2, draws)) for _ in range(repeats)]
    values = {name: [half[name] for half in measured] for name in measured[0]}
    return {
        f"{name}_std": None if None in of else float(np.std(cast(list[float], of), ddof=1))
        for name, of in values.items()
    }


def fid_infinity(samples: Tensor, labels: Tensor, reference: Statistics, *, seed: int) -> float:
    """FID∞ (Chong & Forsyth 2020). The bias of FID falls as 1/M with the number of samples M, so a
    line is fitted to the FIDs of smaller sets against 1/M, and its value at 0 is returned.

    Args:
        samples: features (M, F).
        labels: (M,), the class of each sample; subsets have the proportions of the whole.

    Raises:
        TooFew: a quarter of the samples is too few for a covariance.
    """
    count = len(samples)
    draws = generator(seed, "fid_infinity")
    sizes = np.linspace(max(1, count // 4), count, SIZES).round().astype(int)
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
