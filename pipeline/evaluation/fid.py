"""Fréchet Inception Distance (Heusel 2017), of torch-fidelity's definition."""

from functools import lru_cache

import torch
from torch import Tensor

from pipeline.evaluation.statistics import SAMPLES, ReferenceStatistics, statistics
from pipeline.runtime.errors import UserError


def fid(samples: Tensor, reference: Tensor | ReferenceStatistics) -> float:
    """Fréchet distance of Gaussians fitted to features (M, F) and (R, F), or to features and
    published statistics.

    Raises:
        TooFew: the samples are too few for a covariance.
        UserError: the statistics are of another extractor.
    """
    if isinstance(reference, Tensor):
        reference = statistics(reference)
    require_dimensions(reference, samples.shape[1])
    return _frechet(statistics(samples, SAMPLES), reference)


def _frechet(samples: ReferenceStatistics, reference: ReferenceStatistics) -> float:
    """‖μ − μ_R‖² + tr Σ + tr Σ_R − 2 tr (Σ_R^½ Σ Σ_R^½)^½.

    torch-fidelity takes the roots of the eigenvalues of Σ Σ_R. This symmetric product has the same
    ones, which are found in a third of the time (0.7 s at 2,048 dimensions on two cores). Where
    covariances are nearly singular both have errors of some 1e-5.
    """
    root_FF = _root(reference.sigma)
    eigenvalues = torch.linalg.eigvalsh(root_FF @ samples.sigma @ root_FF)
    shared = eigenvalues.clamp(min=0).sqrt().sum()  # below 0 by rounding alone
    apart = (samples.mu - reference.mu).square().sum()
    traces = samples.sigma.trace() + reference.sigma.trace()
    return max((apart + traces - 2 * shared).item(), 0.0)


@lru_cache(maxsize=2)  # a reference's, set after set
def _root(sigma_FF: Tensor) -> Tensor:
    """The symmetric square root of a covariance (F, F)."""
    values, vectors_FF = torch.linalg.eigh(sigma_FF)
    return (vectors_FF * values.clamp(min=0).sqrt()) @ vectors_FF.T


def require_dimensions(reference: ReferenceStatistics, dimensions: int) -> None:
    """Refuse statistics of features that have not so many dimensions: of another extractor."""
    if len(reference.mu) != dimensions:
        raise UserError(
            f"FID: the reference statistics are of {len(reference.mu)}-dimensional features and "
            f"the samples' features have {dimensions} dimensions; use statistics that were made "
            f"with the same extractor"
        )
