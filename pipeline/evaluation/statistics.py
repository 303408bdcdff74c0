"""Mean and covariance of features: all that FID needs of a reference set, so that sets which cannot
be shipped are published as these."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError


class ReferenceStatistics(NamedTuple):
    mu: Tensor  # (F,) float64
    sigma: Tensor  # (F, F) float64


def statistics(features: Tensor, what: str = "reference images") -> ReferenceStatistics:
    """Mean and unbiased covariance of features (M, F).

    Args:
        what: the images they are features of, for the error.

    Raises:
        UserError: too few images for a covariance.
    """
    count, dimension = features.shape
    if count < dimension + 1:
        raise UserError(
            f"FID: {count} {what} cannot give a covariance of {dimension}-dimensional "
            f"features; use at least {dimension + 1} (sweep.samples, evaluation.samples)"
        )
    features = features.double()
    return ReferenceStatistics(features.mean(dim=0), torch.cov(features.T))


def load_statistics(path: Path | str, *, spatial: bool = False) -> ReferenceStatistics:
    """Published statistics: an `.npz` with `mu` and `sigma`, as the ADM suite's and pytorch-fid's.

    Args:
        spatial: the ADM suite's second pair, `mu_s` and `sigma_s`, of the spatial features of sFID.

    Raises:
        UserError: the file is missing, damaged, or holds no such pair.
    """
    names = ("mu_s", "sigma_s") if spatial else ("mu", "sigma")
    try:
        with np.load(path) as archive:
            mu, sigma = (torch.from_numpy(np.array(archive[name], np.float64)) for name in names)
    except FileNotFoundError as error:
        raise UserError(f"reference statistics {path} do not exist; give an .npz file") from error
    except Exception as error:  # a damaged file makes its reader raise nearly anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} gives no {names[0]} and {names[1]} ({reason}); FID statistics are an .npz "
            f"with both"
        ) from error
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise UserError(
            f"{path}: {names[0]} {tuple(mu.shape)} and {names[1]} {tuple(sigma.shape)} are no mean "
            f"and covariance of one size; replace the file"
        )
    return ReferenceStatistics(mu, sigma)
