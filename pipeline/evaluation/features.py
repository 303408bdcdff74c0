"""Feature extractors: networks that turn images into the features that metrics compare. Metrics are
named after their extractors."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

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


class Features(NamedTuple):
    features: Tensor  # (M, F) float32
    logits: Tensor | None = None  # (M, classes of the extractor) float32; VGG has none


class Extractor(Protocol):
    name: str

    def __call__(self, images: Tensor) -> Features:
        """Features of uint8 images (B, C, H, W)."""


class ClassifierExtractor:
    """The reference classifier, trained on this data set: needs no download, and its metrics can
    be compared only within the data set."""

    def __init__(self, classifier: Classifier, device: torch.device, name: str = "classifier"):
        self.classifier, self.device, self.name = classifier, device, name

    def __call__(self, images: Tensor) -> Features:
        outputs = self.classifier.outputs(as_float(images.to(self.device)))
        return Features(outputs.features, outputs.logits)


def random_extractor(config: ClassifierConfig, device: torch.device) -> ClassifierExtractor:
    """The reference classifier's architecture with seeded random weights, for precision and recall
    where no pretrained network suits the data (Naeem 2020)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(config)
    return ClassifierExtractor(network.to(device).eval().requires_grad_(False), device, "random")


class PretrainedExtractor:
    """A network of torch-fidelity, which resizes RGB images of any size as TensorFlow 1 did.

    `inception` is the network of the original FID: 2048-d pool features and unbiased logits. `vgg`
    is VGG-16 up to the ReLU of its second fully connected layer, 4096-d, as used for precision and
    recall (Kynkäänniemi 2019; the paper's Table 1).
    """

    def __init__(self, name: str, weights: str | None, device: torch.device):
        """
        Args:
            weights: path of the weights file; None downloads it to torch's cache.

        Raises:
            UserError: the weights cannot be downloaded or do not load.
        """
        self.name, self.device = name, device
        try:
            with only_tensors():
                network = _inception(weights) if name == "inception" else _vgg(weights)
        except Exception as error:  # a download, a file or a state dict may fail in many ways
            raise UserError(
                f"evaluation.{name}_weights",
                f"cannot load {weights or 'the download'} ({in_a_line(error)})",
                f"give the path of {WEIGHTS_OF[name]} weights file, or use the extractor "
                "classifier, which needs none",
            ) from error
        self.network = network.to(device).eval().requires_grad_(False)

    def __call__(self, images: Tensor) -> Features:
        return Features(*self.network(images.expand(-1, 3, -1, -1).to(self.device)))


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


class InBfloat16:
    """An extractor that runs under autocast to bfloat16 (`evaluation.bf16`)."""

    def __init__(self, extractor: Extractor, device: torch.device):
        self.extractor, self.device, self.name = extractor, device, extractor.name

    def __call__(self, images: Tensor) -> Features:
        with autocast(self.device, bf16=True):
            return self.extractor(images)


def open_extractor(
    name: str, classifier: Classifier, evaluation: Evaluation, device: torch.device
) -> Extractor:
    """The extractor of that name: classifier, random, inception or vgg.

    Args:
        evaluation: gives the weights files of the pretrained networks, and `bf16`.

    Raises:
        UserError: the weights cannot be downloaded or do not load.
    """
    extractor: Extractor
    if name == "classifier":
        extractor = ClassifierExtractor(classifier, device)
    elif name == "random":
        extractor = random_extractor(classifier.config, device)
    else:
        weights = getattr(evaluation, f"{name}_weights")
        extractor = PretrainedExtractor(name, weights and str(of_project(weights)), device)
    return InBfloat16(extractor, device) if evaluation.bf16 else extractor


@torch.no_grad()
def extract(extractor: Extractor, batches: Iterable[Tensor]) -> Features:
    """Features, on the CPU, of uint8 image batches (B, C, H, W)."""
    rows = [[x.float().cpu() for x in extractor(b) if x is not None] for b in batches]
    return Features(*(torch.cat(column) for column in zip(*rows, strict=True)))
