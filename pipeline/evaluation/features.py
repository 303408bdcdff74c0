"""Feature extractors: images → what the metrics compare. The extractor's name is part of every
metric's name, and a bare "FID" never means anything but Inception."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pipeline.classifier import Classifier
from pipeline.data.shards import ImageShards, View, as_float
from pipeline.errors import UserError
from pipeline.layout import CLASSIFIER, IMAGES
from pipeline.params import Params
from pipeline.runtime.files import atomic_file, tree_hash, value_hash

BATCH = 250  # images whose features are computed at once


class Features(NamedTuple):
    features: Tensor  # (M, F) float32
    logits: Tensor  # (M, classes of the extractor) float32


class Extractor(Protocol):
    name: str

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F) and logits (B, classes) of uint8 images (B, C, H, W)."""


class ClassifierExtractor:
    """The reference classifier of this data set: offline, comparable only with itself."""

    name = "classifier"

    def __init__(self, classifier: Classifier, device: torch.device):
        self.classifier, self.device = classifier, device

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.classifier.outputs(as_float(images.to(self.device)))
        return outputs.features, outputs.logits


class InceptionExtractor(nn.Module):
    """The Inception network of the original FID, 2048-d pool and unbiased logits."""

    name = "inception"

    def __init__(self, weights: str | None, device: torch.device):
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        try:
            self.network = FeatureExtractorInceptionV3(
                "inception-v3-compat",
                ["2048", "logits_unbiased"],
                feature_extractor_weights_path=weights,
            )
        except Exception as error:  # a download, a file or a state dict may fail in many ways
            raise UserError(
                f"evaluation.inception_weights: Inception does not load from "
                f"{weights or 'its download'} ({' '.join(str(error).split())[:200]}); give the "
                f"path of torch-fidelity's weights file, or set evaluation.extractor: classifier"
            ) from error
        self.device = device
        self.network.to(device).eval().requires_grad_(False)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        rgb = images.expand(-1, 3, -1, -1).to(self.device)
        features, logits = self.network(rgb)
        return features, logits


def open_extractor(
    name: str, classifier: Classifier, weights: str | None, device: torch.device
) -> Extractor:
    if name == "inception":
        return InceptionExtractor(weights, device)
    return ClassifierExtractor(classifier, device)


@torch.no_grad()
def extract(extractor: Extractor, batches: Iterable[Tensor]) -> Features:
    """Features of a stream of uint8 image batches."""
    pairs = [tuple(x.float().cpu() for x in extractor(batch)) for batch in batches]
    features, logits = (torch.cat(column) for column in zip(*pairs, strict=True))
    return Features(features, logits)


def save_features(features: Features, path: Path) -> None:
    from safetensors.torch import save_file

    with atomic_file(path) as temporary:
        save_file(features._asdict(), temporary)


def load_features(path: Path) -> Features:
    from safetensors.torch import load_file

    return Features(**load_file(path))


def reference_features(extractor: Extractor, params: Params) -> Path:
    """File with the features of every training image (centre crops), which samples are compared
    with; computed once for everything that it depends on, and shared by sweep and evaluation."""
    depends = [extractor.name, tree_hash(IMAGES), tree_hash(CLASSIFIER), params.data.model_dump()]
    depends.append(params.evaluation.inception_weights)
    address = value_hash(depends)[:16]
    path = Path(params.ray.storage_path).absolute() / "features" / f"{address}.safetensors"
    if not path.exists():
        view = View(ImageShards(IMAGES, "train"), params.data, params.seed)
        starts = range(0, len(view.images), BATCH)
        batches = (view.centers(range(i, min(i + BATCH, len(view.images)))) for i in starts)
        save_features(extract(extractor, batches), path)
    return path
