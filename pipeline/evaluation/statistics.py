"""Mean and covariance of features: all that FID needs to know of a reference set. Sets of images
that must not be distributed are published in this form."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import atomic_file, require_file
from pipeline.runtime.limits import STATISTICS_BYTES

BLOCK = 10_000  # rows held in double precision at once
# Rounding of published covariances, some of them of fewer images than dimensions, to their largest.
TOLERANCE = 1e-5


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
    # Block by block, in double precision: ImageNet's features fill 20 GB, and may lie on the disk.
    mu = torch.zeros(dimension, dtype=torch.float64)
    for block in features.split(BLOCK):
        mu += block.sum(dim=0, dtype=torch.float64)
    mu /= count
    sigma = torch.zeros(dimension, dimension, dtype=torch.float64)
    for block in features.split(BLOCK):
        centred = block.double() - mu
        sigma.addmm_(centred.T, centred)
    return ReferenceStatistics(mu, sigma / (count - 1))


def save_statistics(found: ReferenceStatistics, path: Path) -> None:
    """Write statistics as they are published."""
    with atomic_file(path) as temporary, open(temporary, "wb") as out:
        np.savez(out, **{name: array.numpy() for name, array in found._asdict().items()})


def load_statistics(path: Path | str) -> ReferenceStatistics:
    """Published statistics: an `.npz` with `mu` and `sigma`, as the ADM suite's and pytorch-fid's.

    Raises:
        UserError: the file is missing, damaged, too large, or holds no mean and covariance.
    """
    path = Path(path)
    try:
        require_file(path)
        with zipfile.ZipFile(path) as archive:
            largest = max(info.file_size for info in archive.infolist())
        if largest > STATISTICS_BYTES:
            raise ValueError(f"its arrays are larger than the limit of {STATISTICS_BYTES:,} bytes")
        with np.load(path) as archive:
            mu, sigma = (_real(archive[name]) for name in ReferenceStatistics._fields)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"reference statistics {path} do not exist; give an .npz file") from error
    except Exception as error:  # a damaged file makes its reader raise nearly anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} gives no mu and sigma ({reason}); FID statistics are an .npz with both"
        ) from error
    if wrong := _no_statistics(mu, sigma):
        raise UserError(f"{path}: mu {tuple(mu.shape)}, sigma {tuple(sigma.shape)}: {wrong}")
    return ReferenceStatistics(mu, sigma)


def _real(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{array.dtype} are no real numbers")
    return torch.from_numpy(np.array(array, np.float64))


def _no_statistics(mu: Tensor, sigma: Tensor) -> str | None:
    """Why the two are no mean and covariance of anything, with the way out; None if they may be."""
    way_out = "; replace the file"
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not len(mu):
        return f"no mean and covariance of one size{way_out}"
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        return f"some of it is NaN or infinite{way_out}"
    scale = sigma.abs().max()
    if ((sigma - sigma.T).abs() > TOLERANCE * scale).any():
        return f"sigma is not symmetric, so no covariance{way_out}"
    # A Cholesky factor, which is quickly found, exists where no variance is negative.
    rounding = TOLERANCE * scale * torch.eye(len(sigma), dtype=sigma.dtype)
    if (sigma.diagonal() < 0).any() or torch.linalg.cholesky_ex(sigma + rounding).info:
        return f"sigma has negative variances, so is no covariance{way_out}"
    return None
