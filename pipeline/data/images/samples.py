"""The samples of a main replicate that `evaluate` publishes, and other stages read."""

import contextlib
import os
import shutil
from pathlib import Path

import numpy as np
from torch import Tensor

from pipeline.runtime.checksums import note_hash, require_hash
from pipeline.runtime.files import atomic_folder

IMAGES, LABELS = "images.npy", "labels.npy"


def publish_samples(samples: Path, labels: Tensor, folder: Path, copy: bool = True) -> None:
    """Publish samples as `images.npy` (M, C, H, W) uint8, with their `labels.npy` (M,) and the
    hashes of both.

    Args:
        copy: else they are the same file by another name, if the file system has such links: they
            take no room before the first name is deleted.
    """
    with atomic_folder(folder) as temporary:
        _publish(samples, temporary / IMAGES, copy)
        np.save(temporary / LABELS, labels.numpy().astype(np.int32))
        for name in (IMAGES, LABELS):
            note_hash(temporary / name)


def _publish(samples: Path, images: Path, copy: bool) -> None:
    if not copy:
        with contextlib.suppress(OSError):  # on another file system, or one without links
            os.link(samples, images)
            return
    shutil.copyfile(samples, images)


def open_samples(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Published samples (M, C, H, W) uint8, memory-mapped, and their labels (M,) int32.

    Raises:
        UserError: they are missing, or not those that were published.
    """
    for name in (IMAGES, LABELS):
        require_hash(folder / name, "run `dvc repro evaluate` to make it again")
    return np.load(folder / IMAGES, mmap_mode="r"), np.load(folder / LABELS)
