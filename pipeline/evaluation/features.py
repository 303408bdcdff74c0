"""Feature extractors, networks that turn images into the features that metrics compare, and the
features of whole image sets in memory-mapped files: ImageNet's take 10 GB.

Metrics are named after their extractors. The features of the training images, which samples are
compared with, are made by the stage `features`. Those of other sets lie in the run directory of the
stage that needs them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, FEATURES, IMAGES
from pipeline.config.schema import Evaluation
from pipeline.data.images.pixels import as_float
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
from pipeline.runtime.device import autocast
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.files import atomic_file, atomic_folder, remove_temporary
from pipeline.runtime.project import of_project
from pipeline.runtime.pytorch_files import downloaded, only_tensors
from pipeline.weights.published import load_model

BATCH = 64  # images that a network is run on at once, at most
PART = 512  # images that one worker computes and stores together


class Features(NamedTuple):
    features: Tensor  # (M, F) float32
    logits: Tensor | None = None  # (M, classes of the extractor) float32; VGG has none


Network = Callable[[Tensor], Features]  # of uint8 images (M, C, H, W)


def open_extractor(
    name: str, classifier: Classifier, evaluation: Evaluation, device: torch.device
) -> Network:
    """Open the extractor of that name: classifier, random, inception or vgg. It takes images on the
    CPU, and returns their features on the CPU.

    Args:
        evaluation: gives `bf16` and the weights files of Inception and VGG; without a file their
            weights are downloaded to torch's cache.

    Raises:
        UserError: the weights cannot be downloaded or do not load.
    """
    if name in ("classifier", "random"):
        network = classifier if name == "classifier" else _random(classifier.config).to(device)
        return partial(extract, partial(_classify, network), device, evaluation.bf16)
    given = getattr(evaluation, f"{name}_weights")
    weights = given and str(of_project(given))
    try:
        with only_tensors():
            library = _library(name, weights).to(device)
    except Exception as error:  # a download, a file or a state dict may fail in many ways
        reason = f"cannot load {weights or 'the download'} ({in_a_line(error)})"
        way_out = "give the path of its weights file, or use the extractor classifier instead"
        raise UserError(f"evaluation.{name}_weights", reason, way_out) from error
    return partial(extract, partial(_of_rgb, library), device, evaluation.bf16)


@torch.no_grad()
def extract(network: Network, device: torch.device, bf16: bool, images: Tensor) -> Features:
    """Run a network on images in batches, in bfloat16 if `bf16`; the features are on the CPU."""
    # In batches of nearly one size: the bits of a small last one could depend on the number of
    # threads (tests/paper/test_kernels.py).
    found = []
    for batch in images.chunk(-(-len(images) // BATCH)):
        with autocast(device, bf16):
            outputs = network(batch.to(device))
        found.append([x.float().cpu() for x in outputs if x is not None])
    return Features(*(torch.cat(column) for column in zip(*found, strict=True)))


def _random(config: ClassifierConfig) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(config).eval().requires_grad_(False)


def _classify(classifier: Classifier, images: Tensor) -> Features:
    outputs = classifier.outputs(as_float(images))
    return Features(outputs.features, outputs.logits)


def _of_rgb(network: nn.Module, images: Tensor) -> Features:
    return Features(*network(images.expand(-1, 3, -1, -1)))


def _library(name: str, weights: str | None) -> nn.Module:
    """torch-fidelity's Inception or VGG, which resizes images of any size as TensorFlow 1 did."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    from torch_fidelity.utils import create_feature_extractor
    from torchvision.models import VGG16_Weights

    if name == "inception":
        kind, layers, url = "inception-v3-compat", ["2048", "logits_unbiased"], URL_INCEPTION_V3
    else:
        kind, layers, url = "vgg16", ["fc2_relu"], VGG16_Weights.IMAGENET1K_V1.url
    given = {"feature_extractor_weights_path": weights or str(downloaded(url))}
    return create_feature_extractor(kind, layers, cuda=False, verbose=False, **given)


# Features in files


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
    return {path.stem: _mapped(path) for path in folder.glob("*.npy")}


def _mapped(path: Path) -> Tensor:
    return torch.from_numpy(load_part(path, partial(np.load, mmap_mode="c")))


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
    return lambda *part: {"features": extractor(images.read(*part)).features}


def reference_features(name: str) -> Tensor:
    """Features (R, F) of the training images by the extractor of that name."""
    return _mapped(FEATURES / name / "features.npy")


def reference_statistics(params: Params) -> Statistics:
    """The statistics with which FID compares: published ones if params name a file, otherwise those
    of the training images.

    Raises:
        UserError: the file cannot be read, or its statistics are of another extractor.
    """
    name, published = params.evaluation.extractor, params.evaluation.reference_statistics
    path = of_project(published) if published else FEATURES / name / "statistics.npz"
    found, dimensions = load_statistics(path), reference_features(name).shape[1]
    if len(found.mu) != dimensions:
        reason = f"they are of {len(found.mu)}-dimensional features, and {name} has {dimensions}"
        way_out = "use statistics that were made with the same extractor"
        raise UserError("evaluation.reference_statistics", reason, way_out)
    return found
