"""Metrics of features and logits: Inception Score, KID, precision and recall (all as torch-fidelity
computes them), density and coverage.

Precision, recall, density and coverage are our own code: no library has the last two, which need
the same distances, and torch-fidelity searches the reference's neighbours again for every set.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.config.schema import Evaluation
from pipeline.data.seeds import generator, mix
from pipeline.evaluation.fid import TooFew
from pipeline.runtime.errors import UserError

BLOCK = 1000  # samples whose distances to all the others are held at once
SCORED = 10_000  # samples whose class probabilities are held at once


def kid(samples: Tensor, reference: Tensor, *, subsets: int, subset_size: int, seed: int) -> float:
    """Kernel Inception Distance (Bińkowski 2018): unbiased squared MMD of features (M, F) and
    (R, F) under the kernel (x·y / F + 1)³, mean over random subsets.

    Raises:
        TooFew: a subset is larger than the sets.
    """
    from torch_fidelity.metric_kid import kernel_mmd

    _require_subset(len(samples), len(reference), subset_size)
    draw = np.random.RandomState(mix(seed, "kid") % 2**32)
    sides = (samples.numpy(), reference.numpy())  # torch's threads and NumPy's would take turns

    def subset(features: np.ndarray) -> np.ndarray:
        rows = draw.choice(len(features), subset_size, replace=False)
        return features[rows].astype(np.float64)

    return float(np.mean([kernel_mmd(*map(subset, sides)) for _ in range(subsets)]))


def _require_subset(samples: int, reference: int, size: int) -> None:
    if size > min(samples, reference):
        raise TooFew(
            "evaluation.kid_subset_size",
            f"subsets of {size} cannot be drawn from {samples} samples and {reference} reference "
            "images",
            "use smaller ones",
        )


def inception_score(logits: Tensor, splits: int, seed: int) -> float:
    """Inception Score, exp E KL(p(y|x) ‖ p(y)), from logits (M, classes): the mean over `splits`
    random parts of the samples (M parts if M is smaller)."""
    count, splits = len(logits), min(splits, len(logits))
    order = np.random.RandomState(mix(seed, "is_splits") % 2**32).permutation(count)
    parts = (order[i * count // splits : (i + 1) * count // splits] for i in range(splits))
    return float(np.mean([_inception_score(logits[part]) for part in parts]))


def _inception_score(logits: Tensor) -> float:
    """Of one part, a block of samples after the other: torch-fidelity holds all of them three times
    in double precision, which for a million are 50 GB."""
    blocks = logits.split(SCORED)
    marginal = torch.stack([b.double().softmax(dim=1).sum(dim=0) for b in blocks]).sum(dim=0)
    tiny = torch.finfo(torch.float64).tiny  # a class that has no probability at all adds none
    log_marginal = (marginal / len(logits)).clamp(min=tiny).log()
    total = logits.new_zeros((), dtype=torch.float64)
    for block in blocks:
        log_p = block.double().log_softmax(dim=1)
        p = block.double().softmax(dim=1)
        total += (p * (log_p - log_marginal)).sum(dim=1).sum()
    return (total / len(logits)).exp().item()


class Manifolds(NamedTuple):
    """Which samples and reference images lie within each other's balls; the ball of an image
    reaches to its k-th nearest neighbour in the same set."""

    precision: float  # share of the samples in a ball of the reference's
    recall: float  # share of the reference in a ball of the samples'
    density: float  # mean number of the reference's balls that a sample is in, divided by k
    coverage: float  # share of the reference's balls that hold a sample


def manifolds(samples: Tensor, reference: Tensor, neighbors: int) -> Manifolds:
    """Precision and recall (Kynkäänniemi 2019), density and coverage (Naeem 2020) of features (M,
    F) against (R, F). Density (which may exceed 1) and coverage resemble precision and recall, but
    are robust to outliers.

    Raises:
        TooFew: fewer images than neighbours.
    """
    _require_neighbors(len(samples), len(reference), neighbors)
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
    return Manifolds(
        precision=precise / len(samples),
        recall=recalled_R.double().mean().item(),
        density=hits / (neighbors * len(samples)),
        coverage=covered_R.double().mean().item(),
    )


def _radii(features: Tensor, neighbors: int) -> Tensor:
    """Distance (M,) of each row of features (M, F) to its k-th nearest other row."""
    blocks = features.split(BLOCK)
    # An image is its own nearest neighbour.
    distances = (torch.cdist(block, features).kthvalue(neighbors + 1, dim=1) for block in blocks)
    return torch.cat([distance.values for distance in distances])


# The reference is the same tensor, set after set; an evaluator has one for each of two extractors.
_reference_radii = lru_cache(maxsize=2)(_radii)


def _require_neighbors(samples: int, reference: int, neighbors: int) -> None:
    if min(samples, reference) <= neighbors:
        raise TooFew(
            "evaluation.neighbors",
            f"{neighbors} nearest neighbours need more than {neighbors} images on each side, and "
            f"there are {samples} and {reference}",
        )


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


@contextmanager
def unless_few(say: bool = True) -> Iterator[None]:
    """Skip the rest of the block if it raises `TooFew`, and print why."""
    try:
        yield
    except TooFew as error:
        if say:
            print(f"not measured: {error}", flush=True)


def require_enough(
    key: str, samples: int, reference: tuple[int, int], evaluation: Evaluation
) -> None:
    """Raise a `UserError` if the samples to be drawn, or the reference images, are too few for a
    metric.

    Args:
        key: the param with the number of samples.
        reference: (R, F), the images and dimensions of the reference features.
    """
    count, dimensions = reference
    if samples <= dimensions:
        raise UserError(
            key,
            f"{samples} samples give no covariance of the {dimensions}-dimensional features of "
            f"evaluation.extractor {evaluation.extractor}, and so no FID",
            f"use at least {dimensions + 1}",
        )
    _require_subset(samples, count, evaluation.kid_subset_size)
    _require_neighbors(samples, count, evaluation.neighbors)


def sample_metric_names(extractor: str) -> list[str]:
    """The metrics of `Evaluator.sample_metrics`, in order, without the recognised share."""
    return [f"{name}_{extractor}" for name in ("fid", "is", "kid", *Manifolds._fields)]
