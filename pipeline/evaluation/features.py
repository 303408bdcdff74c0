"""Extracts the image features that metrics compare, and stores them in memory-mapped files (10 GB
for ImageNet). The stage `features` stores the training images' features, which are the metrics'
reference. Other stages store features of other image sets in their run directories."""

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
from pipeline.data.images.shards import ImageShards, View
from pipeline.evaluation.fid import Statistics, load_statistics, statistics
from pipeline.evaluation.image_sets import ImageSet
from pipeline.runtime.batches import (
    BatchWorkers,
    Maker,
    drop_parts,
    load_part,
    load_tensors,
    make_parts,
    parts_of,
    save_tensors,
)
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.files import atomic_file, atomic_folder, remove_temporary
from pipeline.runtime.project import of_project
from pipeline.runtime.pytorch_files import downloaded, only_tensors
from pipeline.weights.published import load_model

BATCH = 64  # maximum images per forward pass
PART = 512  # images per stored batch, which one worker computes


class Features(NamedTuple):
    features: Tensor  # (M, F) float32
    logits: Tensor | None = None  # (M, extractor's classes) float32; None for VGG


Network = Callable[[Tensor], Features]  # called with uint8 images (M, C, H, W)


def open_extractor(
    name: str, classifier: Classifier, evaluation: Evaluation, device: torch.device
) -> Network:
    """Open the extractor `name`: "classifier", "random" (random weights), "inception" or "vgg". The
    extractor's inputs and outputs are on the CPU. The params section `evaluation` names weights
    files of Inception and VGG; if a name is None, the weights are downloaded. Raises a `UserError`
    if weights cannot be downloaded or loaded."""
    if name in ("classifier", "random"):
        network = classifier if name == "classifier" else _random(classifier.config).to(device)
        return partial(extract, partial(_classify, network), device)
    given = getattr(evaluation, f"{name}_weights")
    weights = given and str(of_project(given))
    try:
        with only_tensors():
            library = _library(name, weights).to(device)
    except Exception as error:  # a download, a file or a state dict may fail in many ways
        reason = f"cannot load {weights or 'the download'} ({in_a_line(error)})"
        way_out = "give the path of a weights file, or use the extractor 'classifier'"
        raise UserError(f"evaluation.{name}_weights", reason, way_out) from error
    return partial(extract, partial(_of_rgb, library), device)


@torch.no_grad()
def extract(network: Network, device: torch.device, images: Tensor) -> Features:
    """Run a network on images in batches. Features are moved to the CPU."""
    # Batches have nearly equal sizes, since the outputs of a small last batch may depend on the
    # number of threads (tests/paper/test_kernels.py).
    found = []
    for batch in images.chunk(-(-len(images) // BATCH)):
        outputs = network(batch.to(device))
        found.append([x.cpu() for x in outputs if x is not None])
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
    """Load torch-fidelity's Inception or VGG, which resize images as TensorFlow 1 does."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    from torch_fidelity.utils import create_feature_extractor
    from torchvision.models import VGG16_Weights

    if name == "inception":
        kind, layers, url = "inception-v3-compat", ["2048", "logits_unbiased"], URL_INCEPTION_V3
    else:
        kind, layers, url = "vgg16", ["fc2_relu"], VGG16_Weights.IMAGENET1K_V1.url
    given = {"feature_extractor_weights_path": weights or str(downloaded(url))}
    return create_feature_extractor(kind, layers, cuda=False, verbose=False, **given)


# Files of features


def stored_tensors(
    folder: Path, count: int, workers: BatchWorkers, maker: Maker, name: str
) -> dict[str, Tensor]:
    """Load named float32 tensors (count, …) of an image set, memory-mapped from `<tensor>.npy`
    files in `folder`. If the folder does not exist, first compute them: `maker` opens a function
    that maps (start, stop) to the tensors of the images in range(start, stop). If the process is
    killed, the next run resumes. `name` labels the progress messages."""
    if not folder.exists():
        remove_temporary(folder.parent, folder.name)
        batches = [(start, min(start + PART, count)) for start in range(0, count, PART)]
        parts = parts_of(folder, batches)
        make_parts(parts, workers, maker, name, save_tensors)
        with atomic_folder(folder) as temporary:
            for key, first in load_tensors(next(iter(parts))).items():
                # Copy one batch at a time: all batches together may not fit in memory.
                file, shape = temporary / f"{key}.npy", (count, *first.shape[1:])
                whole = np.lib.format.open_memmap(file, "w+", np.float32, shape)
                for part, (start, stop) in parts.items():
                    whole[start:stop] = load_tensors(part)[key].numpy()
                whole.flush()
    drop_parts(folder)
    return {path.stem: _mapped(path) for path in folder.glob("*.npy")}


def _mapped(path: Path) -> Tensor:
    return torch.from_numpy(load_part(path, partial(np.load, mmap_mode="c")))


def write_reference(name: str, folder: Path, params: Params, workers: BatchWorkers) -> None:
    """Write the features of all training images (centre crops) by the extractor `name`. If `name`
    is `evaluation.extractor`, also write the features' mean and covariance, unless the param
    `evaluation.reference_statistics` names a file."""
    images = View(ImageShards(IMAGES, "train"), params.data)
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
    """Features (R, F) of the training images by the extractor `name`."""
    return _mapped(FEATURES / name / "features.npy")


def reference_statistics(params: Params) -> Statistics:
    """The reference mean and covariance of FID, from the file `evaluation.reference_statistics` or,
    if this param is null, of the training images. Raises a `UserError` if the file cannot be read,
    or if its number of features is not that of `evaluation.extractor`."""
    name, published = params.evaluation.extractor, params.evaluation.reference_statistics
    path = of_project(published) if published else FEATURES / name / "statistics.npz"
    found, dimensions = load_statistics(path), reference_features(name).shape[1]
    if len(found.mu) != dimensions:
        reason = f"{path} has {len(found.mu)} dimensions, but {name} features have {dimensions}"
        way_out = "use statistics of the same extractor's features"
        raise UserError("evaluation.reference_statistics", reason, way_out)
    return found
