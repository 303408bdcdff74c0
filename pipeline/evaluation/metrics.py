"""Computes Inception Score, KID, precision and recall (as torch-fidelity defines them), density and
coverage, and each metric's uncertainty. torch-fidelity has no density and coverage; its precision
and recall find the nearest neighbours within the reference again for every image set."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache, partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pipeline.data.seeds import generator, mix
from pipeline.evaluation.fid import Statistics, TooFew, fid

MANIFOLDS = ("precision", "recall", "density", "coverage")  # what `manifolds` returns
BLOCK = 1000  # rows of a distance matrix that are computed at once
SIZES = 10  # number of subset sizes that FID∞ is extrapolated from
DRAWS = 3  # number of subsets of each size


def kid(samples: Tensor, reference: Tensor, *, subsets: int, subset_size: int, seed: int) -> float:
    """Kernel Inception Distance (Bińkowski 2018): the unbiased squared MMD of features (M, F) and
    (R, F) under the kernel (x·y / F + 1)³, averaged over random subsets. Raises `TooFew` if
    `subset_size` is larger than M or R."""
    from torch_fidelity.metric_kid import kernel_mmd

    _require("evaluation.kid_subset_size", subset_size, len(samples), len(reference))
    draw = np.random.RandomState(mix(seed, "kid") % 2**32)
    sides = (samples.numpy(), reference.numpy())  # torch's threads would compete with NumPy's

    def subset(features: np.ndarray) -> np.ndarray:
        rows = draw.choice(len(features), subset_size, replace=False)
        return features[rows].astype(np.float64)

    return float(np.mean([kernel_mmd(*map(subset, sides)) for _ in range(subsets)]))


def inception_score(logits: Tensor, splits: int, seed: int) -> float:
    """Inception Score, exp E KL(p(y|x) ‖ p(y)), from logits (M, classes), averaged over `splits`
    random splits of the samples (at most M splits)."""
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    splits, draw = min(splits, len(logits)), mix(seed, "is_splits") % 2**32
    return isc_features_to_metric(logits, splits, rng_seed=draw)[KEY_METRIC_ISC_MEAN]


def manifolds(samples: Tensor, reference: Tensor, neighbors: int) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi 2019), density and coverage (Naeem 2020) of sample
    features (M, F) against reference features (R, F). Density (which may exceed 1) and coverage
    resemble precision and recall, but are robust to outliers. All four use a ball around each
    image, whose radius is the distance to the k-th nearest neighbour in the image's own set
    (k is `neighbors`). Raises `TooFew` if M or R is at most `neighbors`."""
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
        "precision": precise / len(samples),  # share of samples in any reference ball
        "recall": recalled_R.double().mean().item(),  # share of reference images in a sample ball
        "density": hits / (neighbors * len(samples)),  # reference balls per sample, divided by k
        "coverage": covered_R.double().mean().item(),  # share of reference balls with a sample
    }


def _radii(features: Tensor, neighbors: int) -> Tensor:
    """The distance (M,) from each row of features (M, F) to its k-th nearest other row."""
    blocks = features.split(BLOCK)
    # k + 1, since each image is its own nearest neighbour.
    distances = (torch.cdist(block, features).kthvalue(neighbors + 1, dim=1) for block in blocks)
    return torch.cat([distance.values for distance in distances])


# All sets are compared with the same reference; an evaluator has one reference per extractor.
_reference_radii = lru_cache(maxsize=2)(_radii)


def drawn(features: Tensor, count: int, seed: int) -> Tensor:
    """Select at most `count` rows of features (M, F) at random, and keep their order. The selection
    depends only on M, `count` and the seed."""
    if len(features) <= count:
        return features
    chosen = torch.randperm(len(features), generator=generator(seed, "manifold", len(features)))
    return features[chosen[:count].sort().values]


drawn_reference = lru_cache(maxsize=2)(drawn)  # the same tensor for `_reference_radii`'s cache


def class_accuracy(logits: Tensor, labels: Tensor) -> float:
    """The top-1 accuracy (0 to 1) of logits (M, classes) for labels (M,)."""
    return (logits.argmax(dim=1) == labels).double().mean().item()


def unless_few(metric: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """Compute `metric(*args, **settings)`. If there are too few images, print the reason once and
    return None."""
    try:
        return metric(*args, **settings)
    except TooFew as error:
        say_once(f"not measured: {error}")
        return None


say_once = cache(partial(print, flush=True))


def _require(key: str, needed: int, samples: int, reference: int) -> None:
    if needed > min(samples, reference):
        reason = f"too large for {samples} samples and {reference} reference images"
        raise TooFew(key, reason, f"lower {key}, or use at least {needed} of each")


# Uncertainty of the metrics of one image set


def spreads(
    metrics: Callable[[Tensor], Mapping[str, float | None]],
    labels: Tensor,
    *,
    repeats: int,
    seed: int,
) -> dict[str, float | None]:
    """Estimate the standard deviation of each metric over fresh sets of M samples, from random
    halves of one set, each with half of every class (the delete-half jackknife of Shao & Wu 1989).
    Returns each estimate as `<name>_std`, which is None if a half is too small for the metric.

    If a half is drawn without replacement, its mean deviates from the set's mean as much as the
    set's mean deviates from the true mean. So a metric that uses every image needs no correction
    factor. (If a metric uses only some images of a set, pass only these images.) A bootstrap would
    draw duplicates, which distort the nearest neighbours of precision and recall.

    Args:
        metrics: maps indices (m,) into the set to named values; a value is None if m is too small.
        labels: class of each sample, (M,).
        repeats: number of random halves, at least 2.
    """
    draws = generator(seed, "halves")
    measured = [metrics(_subset(labels, len(labels) // 2, draws)) for _ in range(repeats)]
    values = {name: [half[name] for half in measured] for name in measured[0]}
    return {
        f"{name}_std": None if None in of else float(np.std(cast(list[float], of), ddof=1))
        for name, of in values.items()
    }


def fid_infinity(samples: Tensor, labels: Tensor, reference: Statistics, *, seed: int) -> float:
    """FID∞ (Chong & Forsyth 2020), FID extrapolated to infinitely many samples. FID's bias is
    proportional to 1/n, so a line in 1/n is fitted to the FIDs of random subsets of n samples; its
    value at 0 is FID∞. The subsets have the class proportions of `labels`, and the smallest has a
    quarter of the samples. Raises `TooFew` if that is too few for a covariance."""
    count = len(samples)
    draws = generator(seed, "fid_infinity")
    sizes = np.linspace(max(1, count // 4), count, SIZES).round().astype(int)
    sets = [_subset(labels, size, draws) for size in sizes for _ in range(DRAWS)]
    values = [fid(samples[rows], reference) for rows in sets]
    return float(np.polyfit([1 / len(rows) for rows in sets], values, deg=1)[1])


def disjoint(labels: Tensor, size: int, *, seed: int) -> Iterator[Tensor]:
    """Split the indices of `labels` at random into as many disjoint sets of `size` indices as
    possible, each in the class proportions of `labels`."""
    order = _by_class(labels, generator(seed, "disjoint"))
    count = len(labels) // size
    for number in range(count):
        yield _evenly(order[number::count], size, start=0.5)


def _subset(labels: Tensor, size: int, draws: torch.Generator) -> Tensor:
    """Indices (size,) of a random subset in the class proportions of `labels` (± 1 per class)."""
    start = torch.rand((), generator=draws, dtype=torch.float64).item()
    return _evenly(_by_class(labels, draws), size, start)


def _by_class(labels: Tensor, draws: torch.Generator) -> Tensor:
    """The indices of all labels (M,), sorted by class and in random order within each class."""
    order = torch.randperm(len(labels), generator=draws)
    return order[labels[order].argsort(stable=True)]


def _evenly(order: Tensor, size: int, start: float) -> Tensor:
    """Select `size` evenly spaced entries of `order`, and sort the selected entries."""
    positions = (torch.arange(size, dtype=torch.float64) + start) * (len(order) / size)
    return order[positions.long()].sort().values
