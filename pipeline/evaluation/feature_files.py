"""Features of whole image sets in memory-mapped files: ImageNet's take 10 GB.

The features of the training images, which samples are compared with, are made by the stage
`features`. Those of other sets lie in the run directory of the stage that needs them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, FEATURES, IMAGES
from pipeline.evaluation.features import extract, open_extractor
from pipeline.evaluation.fid import Statistics, load_statistics, statistics
from pipeline.evaluation.image_sets import CenterCrops, ImageSet
from pipeline.runtime.batches import (
    BatchWorkers,
    Maker,
    drop_parts,
    load_part,
    load_tensors,
    make_parts,
)
from pipeline.runtime.files import atomic_file, atomic_folder, remove_temporary
from pipeline.runtime.project import of_project
from pipeline.weights.published import load_model

PART = 512  # images that one worker computes and stores together


def stored_tensors(
    folder: Path, count: int, workers: BatchWorkers, maker: Maker, name: str
) -> dict[str, Tensor]:
    """Float32 tensors (count, …) of an image set, memory-mapped from `<folder>/<name>.npy`. If the
    folder does not exist, the tensors are computed first; a killed run resumes at its last part.

    Args:
        maker: opens a function that gives the tensors, by name, of the images from `start` to
            before `stop`.
        name: names the set in messages.

    Raises:
        UserError: the images cannot be read, or the files cannot be read or written.
    """
    if not folder.exists():
        remove_temporary(folder.parent, folder.name)
        batches = [(start, min(start + PART, count)) for start in range(0, count, PART)]
        parts = make_parts({folder: batches}, workers, maker, name)[folder]
        with atomic_folder(folder) as temporary:
            for key, first in load_tensors(parts[0]).items():
                # A part at a time: all of them together may not fit in memory.
                file, shape = temporary / f"{key}.npy", (count, *first.shape[1:])
                whole = np.lib.format.open_memmap(file, "w+", np.float32, shape)
                for part, (start, stop) in zip(parts, batches, strict=True):
                    whole[start:stop] = load_tensors(part)[key].numpy()
                whole.flush()
    drop_parts(folder)
    return {path.stem: _load(path) for path in folder.glob("*.npy")}


def _load(path: Path) -> Tensor:
    return torch.from_numpy(load_part(path, partial(np.load, mmap_mode="c")))


# The training images


def write_reference(name: str, folder: Path, params: Params, workers: BatchWorkers) -> None:
    """Write the features of every training image (centre crops) by the extractor of that name. Also
    write their mean and covariance, unless published ones are used.

    Raises:
        TooFew: the training images are too few for a covariance.
    """
    images = CenterCrops(IMAGES, "train", params.data)
    maker = Maker(_open_extraction, name, images, params)
    found = stored_tensors(folder, len(images), workers, maker, f"features: {name}")
    if name == params.evaluation.extractor and not params.evaluation.reference_statistics:
        mu, sigma = statistics(found["features"])
        with atomic_file(folder / "statistics.npz") as temporary, open(temporary, "wb") as out:
            np.savez(out, mu=mu.numpy(), sigma=sigma.numpy())


def _open_extraction(
    name: str, images: ImageSet, params: Params, device: torch.device
) -> Callable[[int, int], dict[str, Tensor]]:
    classifier = load_model(CLASSIFIER, "classifier", device)
    extractor = open_extractor(name, classifier, params.evaluation, device)
    return lambda *part: {"features": extract(extractor, images.read(*part)).features}


def reference_features(name: str, root: Path = Path()) -> Tensor:
    """Features (R, F) of the training images by the extractor of that name; `root` is the project's
    folder."""
    return _load(root / FEATURES / name / "features.npy")


def reference_statistics(params: Params, root: Path = Path()) -> Statistics:
    """The statistics with which FID compares: published ones if params name a file, otherwise those
    of the training images. Raises the errors of `load_statistics`."""
    if published := params.evaluation.reference_statistics:
        return load_statistics(root / of_project(published))
    return load_statistics(root / FEATURES / params.evaluation.extractor / "statistics.npz")
