"""One measure for every set of images: extractors, reference and settings in one place."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pipeline.evaluation.features import (
    ClassifierExtractor,
    Features,
    cached_features,
    load_features,
    open_extractor,
    reference_features,
)
from pipeline.evaluation.images import ImageSet
from pipeline.evaluation.metrics import (
    bootstrap,
    class_accuracy,
    density_coverage,
    fid,
    inception_score,
    kid,
    precision_recall,
)
from pipeline.layout import CLASSIFIER
from pipeline.models import load_model
from pipeline.params import Params
from pipeline.seeds import generator


class Evaluator:
    """Measures image sets against the training images."""

    def __init__(self, params: Params, device: torch.device):
        self.params = params
        classifier = load_model(CLASSIFIER, "classifier", device)
        evaluation = params.evaluation
        self.judge = ClassifierExtractor(classifier, device)
        self.extractor = open_extractor(
            evaluation.extractor, classifier, evaluation.inception_weights, device
        )
        self.second = open_extractor(
            evaluation.second_extractor, classifier, evaluation.vgg_weights, device
        )
        self.cache_dir = Path(params.ray.storage_path).absolute() / "features"
        self.reference = load_features(reference_features(self.extractor, params))

    def features(self, images: ImageSet) -> Features:
        return cached_features(images, self.extractor, self.cache_dir)

    def recognised(self, images: ImageSet) -> Tensor:
        """Logits (M, classes) of the reference classifier."""
        return cached_features(images, self.judge, self.cache_dir).logits

    def measure(self, images: ImageSet, labels: Tensor | None = None) -> dict[str, float]:
        """Every metric of a set, each named after its extractor, with the standard deviation under
        resampling as `…_std`; with labels (M,), the share that is recognised too."""
        values = self.quality(self.features(images))
        second = cached_features(images, self.second, self.cache_dir)
        reference = load_features(reference_features(self.second, self.params))
        values |= self._manifold(second.features, reference.features, self.second.name)
        if labels is not None:
            values["class_accuracy"] = class_accuracy(self.recognised(images), labels)
        return values | {"samples": len(images)}

    def quality(self, samples: Features) -> dict[str, float]:
        """FID, IS and KID, and the manifold metrics, of features from the main extractor."""
        evaluation, seed, name = self.params.evaluation, self.params.seed, self.extractor.name
        reference = self.reference.features
        score = partial(inception_score, splits=evaluation.is_splits, seed=seed)
        spread = partial(bootstrap, repeats=evaluation.bootstrap, seed=seed)
        mean, std = kid(
            samples.features,
            reference,
            subsets=evaluation.kid_subsets,
            subset_size=evaluation.kid_subset_size,
            seed=seed,
        )
        return {
            f"fid_{name}": fid(samples.features, reference),
            f"fid_{name}_std": spread(lambda x: fid(x, reference), samples.features),
            f"is_{name}": score(samples.logits),
            f"is_{name}_std": spread(score, samples.logits),
            f"kid_{name}": mean,
            f"kid_{name}_std": std,
        } | self._manifold(samples.features, reference, name)

    def _manifold(self, samples: Tensor, reference: Tensor, name: str) -> dict[str, float]:
        """Precision, recall, density and coverage, on at most `manifold_images` of each side."""
        evaluation, draw = self.params.evaluation, generator(self.params.seed, "manifold")
        sides = [
            x[torch.randperm(len(x), generator=draw)[: evaluation.manifold_images].sort().values]
            for x in (samples, reference)
        ]
        precision, recall = precision_recall(*sides, evaluation.neighbors)
        density, coverage = density_coverage(*sides, evaluation.neighbors)
        values = {"precision": precision, "recall": recall}
        values |= {"density": density, "coverage": coverage}
        return {f"{metric}_{name}": value for metric, value in values.items()}
