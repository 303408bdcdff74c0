"""One measure for every set of images: extractors, reference and settings in one place."""

from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from pipeline.evaluation.features import (
    ClassifierExtractor,
    Extractor,
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
    drawn,
    fid,
    inception_score,
    manifold_metrics,
    sample_metrics,
    unless_few,
)
from pipeline.evaluation.statistics import load_statistics, statistics
from pipeline.layout import CLASSIFIER
from pipeline.models import load_model
from pipeline.params import Params


class Evaluator:
    """Measures image sets against the training images."""

    def __init__(self, params: Params, device: torch.device):
        self.params = params
        classifier = load_model(CLASSIFIER, "classifier", device)
        evaluation = params.evaluation
        self.judge = ClassifierExtractor(classifier, device)
        self.extractor = open_extractor(evaluation.extractor, classifier, evaluation, device)
        self.cache_dir = Path(params.ray.storage_path).absolute() / "features"
        self.reference = load_features(reference_features(self.extractor, params))
        published = evaluation.reference_statistics
        self.reference_statistics = (
            load_statistics(published) if published else statistics(self.reference.features)
        )

    @cached_property
    def second(self) -> tuple[Extractor, Tensor]:
        """The second extractor, and features of as many training images, drawn at random, as a
        manifold is made of."""
        evaluation = self.params.evaluation
        extractor = open_extractor(
            evaluation.second_extractor, self.judge.classifier, evaluation, self.judge.device
        )
        reference = load_features(reference_features(extractor, self.params)).features
        return extractor, drawn(reference, evaluation.manifold_images, self.params.seed)

    def features(self, images: ImageSet) -> Features:
        return cached_features(images, self.extractor, self.cache_dir)

    def recognised(self, images: ImageSet) -> Tensor:
        """Logits (M, classes) of the reference classifier."""
        return cached_features(images, self.judge, self.cache_dir).logits

    def measure(self, images: ImageSet, labels: Tensor | None = None) -> dict[str, float | None]:
        """Every metric of a set, each named after its extractor, with the standard deviation of FID
        and IS under resampling, and of KID over subsets, as `…_std`; with labels (M,), the share
        that is recognised too."""
        values = self.quality(self.features(images))
        extractor, reference = self.second
        values |= manifold_metrics(
            cached_features(images, extractor, self.cache_dir).features,
            reference,
            extractor.name,
            self.params.evaluation,
            self.params.seed,
        )
        if labels is not None:
            values["class_accuracy"] = class_accuracy(self.recognised(images), labels)
        return values | {"samples": len(images), "is_splits": self.params.evaluation.is_splits}

    def quality(self, samples: Features) -> dict[str, float | None]:
        """FID, IS, KID and the manifold metrics of features from the main extractor; FID or KID is
        None where the samples are too few, which is said."""
        values = sample_metrics(
            samples,
            self.reference,
            self.extractor.name,
            self.params.evaluation,
            self.params.seed,
            self.reference_statistics,
            skip_few=True,
        )
        return values | self.spreads(samples)

    def spreads(self, samples: Features) -> dict[str, float | None]:
        """Standard deviations of FID and IS under resampling; None of an FID that there is not."""
        evaluation, seed, name = self.params.evaluation, self.params.seed, self.extractor.name
        spread = partial(bootstrap, repeats=evaluation.bootstrap, seed=seed)
        distance = partial(fid, reference=self.reference_statistics)
        score = partial(inception_score, splits=evaluation.is_splits, seed=seed)
        count, dimensions = samples.features.shape
        return {
            f"fid_{name}_std": spread(distance, samples.features) if count > dimensions else None,
            f"is_{name}_std": spread(score, samples.logits),
        }

    def scores(
        self, samples: Features, recognised: Tensor, labels: Tensor
    ) -> dict[str, float | None]:
        """FID, IS and the share that is recognised, of sets that may be small.

        Args:
            samples: of the main extractor.
            recognised: logits (M, classes) of the reference classifier.
            labels: (M,).

        Returns:
            fid_<extractor> (None where the samples are too few for a covariance, which is said),
            is_<extractor> and class_accuracy.
        """
        evaluation, name = self.params.evaluation, self.extractor.name
        distance = None
        with unless_few():
            distance = fid(samples.features, self.reference_statistics)
        return {
            f"fid_{name}": distance,
            f"is_{name}": inception_score(samples.logits, evaluation.is_splits, self.params.seed),
            "class_accuracy": class_accuracy(recognised, labels),
        }
