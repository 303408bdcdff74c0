"""Feature extractors: networks that turn images into the features that metrics compare. Metrics are
named after their extractors."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.config.schema import Evaluation
from pipeline.data.images.pixels import as_float
from pipeline.runtime.device import autocast
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.project import of_project
from pipeline.runtime.pytorch_files import downloaded, only_tensors

BATCH = 64  # images that a network is run on at once, at most


class Features(NamedTuple):
    features: Tensor  # (M, F) float32
    logits: Tensor | None = None  # (M, classes of the extractor) float32; VGG has none


class Extractor:
    """A network that turns images into features.

    Args:
        name: ends the names of the metrics of its features.
        network: `Features` of uint8 images (B, C, H, W) on the device.
        bf16: run it in bfloat16 (`evaluation.bf16`).
    """

    def __init__(
        self,
        name: str,
        network: Callable[[Tensor], Features],
        device: torch.device,
        bf16: bool = False,
    ):
        self.name, self.network, self.device, self.bf16 = name, network, device, bf16

    def __call__(self, images: Tensor) -> Features:
        """Features of uint8 images (B, C, H, W)."""
        with autocast(self.device, self.bf16):
            return self.network(images.to(self.device))


def open_extractor(
    name: str, classifier: Classifier, evaluation: Evaluation, device: torch.device
) -> Extractor:
    """Open the extractor of that name: classifier, random, inception or vgg.

    Args:
        evaluation: gives `bf16` and the weights files of Inception and VGG; without a file their
            weights are downloaded to torch's cache.

    Raises:
        UserError: the weights cannot be downloaded or do not load.
    """
    if name in ("classifier", "random"):
        network = classifier if name == "classifier" else _random(classifier.config).to(device)
        return Extractor(name, partial(_classify, network), device, evaluation.bf16)
    given = getattr(evaluation, f"{name}_weights")
    weights = given and str(of_project(given))
    try:
        with only_tensors():
            library = _inception(weights) if name == "inception" else _vgg(weights)
    except Exception as error:  # a download, a file or a state dict may fail in many ways
        raise UserError(
            f"evaluation.{name}_weights",
            f"cannot load {weights or 'the download'} ({in_a_line(error)})",
            f"give the path of {WEIGHTS_OF[name]} weights file, or use the extractor classifier, "
            "which needs none",
        ) from error
    library = library.to(device).eval().requires_grad_(False)
    return Extractor(name, partial(_of_rgb, library), device, evaluation.bf16)


def _classify(classifier: Classifier, images: Tensor) -> Features:
    outputs = classifier.outputs(as_float(images))
    return Features(outputs.features, outputs.logits)


def _of_rgb(network: nn.Module, images: Tensor) -> Features:
    """By a network of torch-fidelity, which resizes images of any size as TensorFlow 1 did."""
    return Features(*network(images.expand(-1, 3, -1, -1)))


def _random(config: ClassifierConfig) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(config).eval().requires_grad_(False)


WEIGHTS_OF = {"inception": "torch-fidelity's", "vgg": "torchvision's VGG-16"}


def _inception(weights: str | None) -> nn.Module:
    from torch_fidelity import feature_extractor_inceptionv3 as library

    path = weights or str(downloaded(library.URL_INCEPTION_V3))
    return library.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=path
    )


def _vgg(weights: str | None) -> nn.Module:
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16
    from torchvision.models import VGG16_Weights

    path = weights or str(downloaded(VGG16_Weights.IMAGENET1K_V1.url))
    return FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=path)


@torch.no_grad()
def extract(extractor: Extractor, images: Tensor) -> Features:
    """Compute the features, on the CPU, of uint8 image batches (B, C, H, W)."""
    # In batches of nearly one size: the bits of a small last one could depend on the number of
    # threads (tests/paper/test_kernels.py).
    batches = images.chunk(-(-len(images) // BATCH))
    rows = [[x.float().cpu() for x in extractor(batch) if x is not None] for batch in batches]
    return Features(*(torch.cat(column) for column in zip(*rows, strict=True)))
