"""Feature extractors: networks that turn images into the features that metrics compare. Every
metric is named after its extractor, and a bare "FID" always means Inception's."""

import hashlib
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.config.schema import Evaluation
from pipeline.data.images.pixels import as_float
from pipeline.runtime.device import autocast
from pipeline.runtime.errors import UserError
from pipeline.runtime.project import of_project
from pipeline.runtime.pytorch_files import downloaded, only_tensors


class Features(NamedTuple):
    features: Tensor  # (M, F) float32
    logits: Tensor | None = None  # (M, classes of the extractor) float32, where it has any

    @property
    def class_logits(self) -> Tensor:
        """The logits, of an extractor that has classes (classifier, random, inception)."""
        assert self.logits is not None, "VGG gives no logits"
        return self.logits


class Extractor(Protocol):
    name: str

    @property
    def identity(self) -> str:
        """Hash of the weights."""

    def __call__(self, images: Tensor) -> Features:
        """Features of uint8 images (B, C, H, W)."""


def weights_hash(network: nn.Module) -> str:
    """SHA-256 of a network's weights and buffers, wherever they came from."""
    from safetensors.torch import save

    weights = {k: v.cpu().contiguous() for k, v in network.state_dict().items()}
    return hashlib.sha256(save(weights)).hexdigest()


class ClassifierExtractor:
    """The reference classifier of this data set: offline, comparable only with itself."""

    def __init__(self, classifier: Classifier, device: torch.device, name: str = "classifier"):
        self.classifier, self.device, self.name = classifier, device, name

    @cached_property
    def identity(self) -> str:
        return weights_hash(self.classifier)

    def __call__(self, images: Tensor) -> Features:
        channels = self.classifier.config.channels
        if images.shape[1] != channels:
            raise UserError(
                f"the classifier was trained on images of {channels} channels and these have "
                f"{images.shape[1]}; use images of data.channels, or another extractor"
            )
        outputs = self.classifier.outputs(as_float(images.to(self.device)))
        return Features(outputs.features, outputs.logits)


def random_extractor(config: ClassifierConfig, device: torch.device) -> ClassifierExtractor:
    """The reference classifier's architecture with seeded random weights: for precision and recall
    where no pretrained network suits the data (Naeem 2020)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(config)
    return ClassifierExtractor(network.to(device).eval().requires_grad_(False), device, "random")


class PretrainedExtractor:
    """A network of torch-fidelity, which takes RGB of any size and resizes it as TensorFlow 1 did.

    `inception` is the network of the original FID: 2048-d pool and unbiased logits. `vgg` is VGG-16
    behind its second fully connected layer and ReLU, 4096-d: precision/recall's (Kynkäänniemi 2019;
    the paper's Table 1).
    """

    def __init__(self, name: str, weights: str | None, device: torch.device):
        """
        Args:
            weights: the file; None downloads it to torch's cache.

        Raises:
            UserError: the weights cannot be downloaded or do not load.
        """
        self.name, self.device = name, device
        try:
            with only_tensors():
                network = _inception(weights) if name == "inception" else _vgg(weights)
        except Exception as error:  # a download, a file or a state dict may fail in many ways
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"evaluation.{name}_weights: {name} does not load from "
                f"{weights or 'its download'} ({reason}); give the path of {WEIGHTS_OF[name]} "
                f"weights file, or choose the extractor classifier, which needs none"
            ) from error
        self.network = network.to(device).eval().requires_grad_(False)

    @cached_property
    def identity(self) -> str:
        return weights_hash(self.network)

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
    """An extractor under autocast (`evaluation.bf16`)."""

    def __init__(self, extractor: Extractor, device: torch.device):
        self.extractor, self.device, self.name = extractor, device, extractor.name

    @property
    def identity(self) -> str:
        """Of its features, which are others than in float32."""
        return f"{self.extractor.identity} bf16"

    def __call__(self, images: Tensor) -> Features:
        with autocast(self.device, bf16=True):
            return self.extractor(images)


def open_extractor(
    name: str, classifier: Classifier, evaluation: Evaluation, device: torch.device
) -> Extractor:
    """The extractor of that name: classifier, random, inception or vgg.

    Args:
        evaluation: names the weights files of the pretrained networks, and the arithmetic.

    Raises:
        UserError: the weights cannot be downloaded or do not load.
    """
    extractor = _in_float32(name, classifier, evaluation, device)
    return InBfloat16(extractor, device) if evaluation.bf16 else extractor


def _in_float32(
    name: str, classifier: Classifier, evaluation: Evaluation, device: torch.device
) -> Extractor:
    if name == "classifier":
        return ClassifierExtractor(classifier, device)
    if name == "random":
        return random_extractor(classifier.config, device)
    weights = getattr(evaluation, f"{name}_weights")
    return PretrainedExtractor(name, weights and str(of_project(weights)), device)


@torch.no_grad()
def extract(extractor: Extractor, batches: Iterable[Tensor]) -> Features:
    """Features, on the CPU, of uint8 image batches (B, C, H, W)."""
    rows = [[x.float().cpu() for x in extractor(b) if x is not None] for b in batches]
    return Features(*(torch.cat(column) for column in zip(*rows, strict=True)))
