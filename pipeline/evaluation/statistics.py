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
from pipeline.runtime.limits import STATISTICS_SIZE

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
        return read_statistics(path)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"reference statistics {path} do not exist; give an .npz file") from error
    except NoStatistics as error:
        raise UserError(f"{path}: {error}; replace the file") from error
    except Exception as error:  # a damaged file makes its reader raise nearly anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} gives no mu and sigma ({reason}); FID statistics are an .npz with both"
        ) from error


class NoStatistics(ValueError):
    """Two arrays are no mean and covariance of anything."""


def read_statistics(path: Path) -> ReferenceStatistics:
    """Statistics of a regular file.

    Raises:
        NoStatistics: what it holds is none.
        Exception: nearly any other, where it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        mu, sigma = (_array(archive, name) for name in ReferenceStatistics._fields)
    if wrong := _no_statistics(mu, sigma):
        raise NoStatistics(f"mu {tuple(mu.shape)}, sigma {tuple(sigma.shape)}: {wrong}")
    return ReferenceStatistics(mu, sigma)


def array_entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The entry of an array in an `.npz`, as NumPy writes it. In another packing a few bytes may
    hold what is read for hours, and of two entries of one name each reader takes its own.

    Raises:
        KeyError: there is none.
        ValueError: there are two, or NumPy would not pack it so.
    """
    entry = archive.getinfo(f"{name}.npy")
    if archive.namelist().count(entry.filename) > 1:
        raise ValueError(f"it has {entry.filename} twice")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("NumPy packs in another way")
    return entry


def _array(archive: zipfile.ZipFile, name: str) -> Tensor:
    """An array of an `.npz` in float64. What its header says is looked at before its numbers are
    read: a small file may unpack to more than any machine has."""
    entry = array_entry(archive, name)
    with archive.open(entry) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{name} is no array of numbers")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in "fiu":
        raise ValueError(f"{dtype} are no real numbers")
    if len(shape) > 2 or any(size > STATISTICS_SIZE for size in shape):
        raise NoStatistics(
            f"{name} has shape {shape}, more than the limit of {STATISTICS_SIZE:,} dimensions"
        )
    with archive.open(entry) as stream, np.errstate(all="ignore"):  # to infinity, which is refused
        array = np.lib.format.read_array(stream, allow_pickle=False)
        return torch.from_numpy(array.astype(np.float64, copy=False))


def _no_statistics(mu: Tensor, sigma: Tensor) -> str | None:
    """Why the two are no mean and covariance of features; None if they may be."""
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not len(mu):
        return "no mean and covariance of one size"
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        return "some of it is NaN or infinite"
    scale = sigma.abs().max()
    if ((sigma - sigma.T).abs() > TOLERANCE * scale).any():
        return "sigma is not symmetric, so no covariance"
    if not scale:
        return "sigma is all zero, as of images that are all the same"
    # A Cholesky factor, which is quickly found, exists where no variance is negative.
    rounded = sigma / scale
    rounded.diagonal().add_(TOLERANCE)
    if (sigma.diagonal() < 0).any() or torch.linalg.cholesky_ex(rounded).info:
        return "sigma has negative variances, so is no covariance"
    return None
