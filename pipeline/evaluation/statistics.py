"""Mean and covariance of features: all that FID needs to know of a reference set. Sets of images
that must not be distributed are published in this form."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime.errors import UserError

BLOCK = 10_000  # rows held in double precision at once


REFERENCE, SAMPLES = "reference images", "samples"
MORE = {  # how a user gets more of them
    REFERENCE: "more training images, or a smaller data.val_fraction or classifier.width",
    SAMPLES: "the stage's own param: samples of sweep, evaluation or temperature, editing.images",
}


class TooFew(UserError):
    """A set of images is too small for a metric."""


class ReferenceStatistics(NamedTuple):
    mu: Tensor  # (F,) float64
    sigma: Tensor  # (F, F) float64


def statistics(features: Tensor, what: str = REFERENCE) -> ReferenceStatistics:
    """Mean and unbiased covariance of features (M, F).

    Args:
        what: names the images in the error.

    Raises:
        TooFew: the features are too few for a covariance.
    """
    count, dimension = features.shape
    if count < dimension + 1:
        raise TooFew(
            f"FID: {count} {what} cannot give a covariance of {dimension}-dimensional features; "
            f"use at least {dimension + 1} ({MORE.get(what, 'more images')})"
        )
    mu = features.mean(dim=0, dtype=torch.float64)
    sigma = torch.zeros(dimension, dimension, dtype=torch.float64)
    for block in features.split(BLOCK):  # in double precision, ImageNet's features fill 20 GB
        centred = block.double() - mu
        sigma.addmm_(centred.T, centred)
    return ReferenceStatistics(mu, sigma / (count - 1))


def load_statistics(path: Path | str) -> ReferenceStatistics:
    """Published statistics: an `.npz` with `mu` and `sigma`, as the ADM suite's and pytorch-fid's.

    Raises:
        UserError: the file is missing, damaged, or holds no such pair.
    """
    try:
        with np.load(path) as archive:
            pair = (np.array(archive[name], np.float64) for name in ("mu", "sigma"))
            mu, sigma = map(torch.from_numpy, pair)
    except FileNotFoundError as error:
        raise UserError(f"reference statistics {path} do not exist; give an .npz file") from error
    except Exception as error:  # a damaged file makes its reader raise nearly anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} gives no mu and sigma ({reason}); FID statistics are an .npz with both"
        ) from error
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise UserError(
            f"{path}: mu {tuple(mu.shape)} and sigma {tuple(sigma.shape)} are no mean and "
            f"covariance of one size; replace the file"
        )
    return ReferenceStatistics(mu, sigma)
