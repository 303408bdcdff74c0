"""Fréchet Inception Distance (Heusel 2017) as torch-fidelity defines it, and the mean and
covariance that it compares. Data sets that must not be distributed are often published as these
statistics.

The code is our own: torchmetrics takes no published mean and covariance, and a row needs about 50
FIDs (of halves, and for FID∞), each of which torchmetrics computes from scratch.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime.batches import load_part
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import require_file

BLOCK = 10_000  # rows held in double precision at once


class TooFew(UserError):
    """The set of images is too small for a metric."""


class Statistics(NamedTuple):
    """Mean and covariance of the features of a set."""

    mu: Tensor  # (F,) float64
    sigma: Tensor  # (F, F) float64


def statistics(features: Tensor, what: str = "reference images") -> Statistics:
    """Mean and unbiased covariance of features (M, F).

    Args:
        what: names the images in the error.

    Raises:
        TooFew: the features are too few for a covariance.
    """
    count, dimension = features.shape
    if count < dimension + 1:
        raise TooFew(
            "FID",
            f"{count} {what} cannot give a covariance of {dimension}-dimensional features",
            f"use at least {dimension + 1}",
        )
    # In blocks: ImageNet's features take 20 GB and are memory-mapped.
    mu = torch.zeros(dimension, dtype=torch.float64)
    for block in features.split(BLOCK):
        mu += block.sum(dim=0, dtype=torch.float64)
    mu /= count
    sigma = torch.zeros(dimension, dimension, dtype=torch.float64)
    for block in features.split(BLOCK):
        centred = block.double() - mu
        sigma.addmm_(centred.T, centred)
    return Statistics(mu, sigma / (count - 1))


def load_statistics(path: Path | str) -> Statistics:
    """Load published statistics: an `.npz` with `mu` and `sigma`, as of pytorch-fid and the ADM
    suite.

    Raises:
        UserError: the file is missing or damaged, or does not hold a mean and a covariance.
    """
    return load_part(Path(path), _load, "give an .npz with a mean (mu) and a covariance (sigma)")


def _load(path: Path) -> Statistics:
    require_file(path)
    with np.load(path, allow_pickle=False) as arrays:
        mu, sigma = (torch.from_numpy(arrays[key].astype(float)) for key in Statistics._fields)
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise ValueError(f"mu {tuple(mu.shape)} and sigma {tuple(sigma.shape)} do not fit")
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        raise ValueError("it has values that are NaN or infinite")
    return Statistics(mu, sigma)


def fid(samples: Tensor, reference: Tensor | Statistics) -> float:
    """Fréchet distance between Gaussians fitted to features (M, F) and to a reference, given as
    features (R, F) or as statistics.

    torch-fidelity takes the roots of the eigenvalues of Σ Σ_R. This symmetric product has the same
    eigenvalues and needs a third of the time (0.7 s at 2,048 dimensions on two cores). Where
    covariances are nearly singular both have errors of about 1e-5.

    Raises:
        TooFew: the samples are too few for a covariance.
    """
    if isinstance(reference, Tensor):
        reference = statistics(reference)
    mu, sigma = statistics(samples, "samples")
    root_FF = _root(reference.sigma)
    eigenvalues = torch.linalg.eigvalsh(root_FF @ sigma @ root_FF)
    shared = eigenvalues.clamp(min=0).sqrt().sum()  # below 0 by rounding alone
    apart = (mu - reference.mu).square().sum()
    traces = sigma.trace() + reference.sigma.trace()
    return max((apart + traces - 2 * shared).item(), 0.0)


@lru_cache(maxsize=2)  # the same reference is used for set after set
def _root(sigma_FF: Tensor) -> Tensor:
    """The symmetric square root of a covariance (F, F)."""
    values, vectors_FF = torch.linalg.eigh(sigma_FF)
    return (vectors_FF * values.clamp(min=0).sqrt()) @ vectors_FF.T
