"""Computes the Fréchet Inception Distance (Heusel 2017) as torch-fidelity defines it.

torchmetrics is not used, because it accepts no published mean and covariance, and computes a FID
more slowly. (One row of a result file needs about 50 FIDs of random subsets.)
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

BLOCK = 10_000  # rows of features converted to float64 at once


class TooFew(UserError):
    """An image set has too few images for a metric."""


class Statistics(NamedTuple):
    """Mean and covariance of an image set's features."""

    mu: Tensor  # (F,) float64
    sigma: Tensor  # (F, F) float64


def statistics(features: Tensor) -> Statistics:
    """Mean and unbiased covariance of features (M, F). Raises `TooFew` if M ≤ F."""
    count, dimension = features.shape
    if count <= dimension:
        reason = f"{count} images cannot give a covariance of {dimension}-dimensional features"
        raise TooFew("FID", reason, f"use at least {dimension + 1}")
    # Sum blocks of rows: the features are memory-mapped, and ImageNet's take 20 GB in float64.
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
    """Load published statistics from an `.npz` with `mu` and `sigma`, the format of pytorch-fid and
    the ADM suite. Raises a `UserError` if the file is missing, damaged or in another format."""
    return load_part(Path(path), _load, "give an .npz with a mean (mu) and a covariance (sigma)")


def _load(path: Path) -> Statistics:
    require_file(path)
    with np.load(path, allow_pickle=False) as arrays:
        mu, sigma = (torch.from_numpy(arrays[key].astype(float)) for key in Statistics._fields)
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        shapes = f"mu has shape {tuple(mu.shape)}, and sigma {tuple(sigma.shape)}"
        raise ValueError(f"{shapes}, not (F,) and (F, F)")
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        raise ValueError("some values of mu or sigma are NaN or infinite")
    return Statistics(mu, sigma)


def fid(samples: Tensor, reference: Tensor | Statistics) -> float:
    """Fréchet distance between two Gaussians: one fitted to sample features (M, F), the other to a
    reference, given as features (R, F) or statistics. Raises `TooFew` if M ≤ F or R ≤ F."""
    if isinstance(reference, Tensor):
        reference = statistics(reference)
    mu, sigma = statistics(samples)
    # torch-fidelity takes the roots of the eigenvalues of Σ Σ_R. The symmetric √Σ_R Σ √Σ_R has the
    # same eigenvalues and takes a third of the time; both have errors of about 1e-5.
    root_FF = _root(reference.sigma)
    eigenvalues = torch.linalg.eigvalsh(root_FF @ sigma @ root_FF)
    shared = eigenvalues.clamp(min=0).sqrt().sum()  # negative only because of rounding
    apart = (mu - reference.mu).square().sum()
    traces = sigma.trace() + reference.sigma.trace()
    return max((apart + traces - 2 * shared).item(), 0.0)


@lru_cache(maxsize=2)  # many sets are compared with the same reference
def _root(sigma_FF: Tensor) -> Tensor:
    values, vectors_FF = torch.linalg.eigh(sigma_FF)
    return (vectors_FF * values.clamp(min=0).sqrt()) @ vectors_FF.T
