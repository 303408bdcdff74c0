"""Measures all sets of images with the same extractors, reference and settings."""

from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER
from pipeline.evaluation.features import (
    ClassifierExtractor,
    Extractor,
    Features,
    cached_features,
    extract,
    load_features,
    open_extractor,
    reference_features,
)
from pipeline.evaluation.images import BATCH, ImageSet
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
from pipeline.weights.published import load_model


class Evaluator:
    """Measures image sets against the training images.

    Args:
        root: the project's folder; a worker may have another working directory.
        keep: whether features are kept on disk, so that the same images are not run through the
            network again.
    """

    def __init__(
        self, params: Params, device: torch.device, root: Path = Path(), keep: bool = True
    ):
        self.params, self.root, self.keep = params, root, keep
        classifier = load_model(root / CLASSIFIER, "classifier", device)
        evaluation = params.evaluation
        self.judge = ClassifierExtractor(classifier, device)
        self.extractor = open_extractor(evaluation.extractor, classifier, evaluation, device)
        self.cache_dir = root / params.ray.storage_path / "features"
        self.reference = load_features(self._reference(self.extractor))
        published = evaluation.reference_statistics
        self.reference_statistics = (
            load_statistics(root / published) if published else statistics(self.reference.features)
        )

    def _reference(self, extractor: Extractor) -> Path:
        return reference_features(extractor, self.params, self.root)

    @cached_property
    def second(self) -> tuple[Extractor, Tensor]:
        """The second extractor, and the features (M, F) of its reference manifold: those of at most
        `manifold_images` training images, drawn at random."""
        evaluation = self.params.evaluation
        extractor = open_extractor(
            evaluation.second_extractor, self.judge.classifier, evaluation, self.judge.device
        )
        reference = load_features(self._reference(extractor)).features
        return extractor, drawn(reference, evaluation.manifold_images, self.params.seed)

    def features(self, images: ImageSet) -> Features:
        """Features of the images, from the main extractor."""
        return self._features(images, self.extractor)

    def recognised(self, images: ImageSet) -> Tensor:
        """Logits (M, classes) of the reference classifier."""
        return self._features(images, self.judge).class_logits

    def _features(self, images: ImageSet, extractor: Extractor) -> Features:
        if self.keep:
            return cached_features(images, extractor, self.cache_dir)
        return extract(extractor, images.batches(BATCH))

    def measure(self, images: ImageSet, labels: Tensor | None = None) -> dict[str, float | None]:
        """Every metric of a set, each named after its extractor; as `…_std` the standard deviations
        of FID and IS under resampling, and of KID over subsets.

        Args:
            labels: (M,); with them the share that the classifier recognises is measured too.
        """
        samples = self.features(images)
        values = self.sample_metrics(samples, self.params.seed, skip_few=True)
        values |= self.spreads(samples)
        extractor, reference = self.second
        values |= manifold_metrics(
            self._features(images, extractor).features,
            reference,
            extractor.name,
            self.params.evaluation,
            self.params.seed,
        )
        if labels is not None:
            values["class_accuracy"] = class_accuracy(self.recognised(images), labels)
        return values | {"samples": len(images), "is_splits": self.params.evaluation.is_splits}

    def sample_metrics(
        self, samples: Features, seed: int, skip_few: bool = False
    ) -> dict[str, float | None]:
        """FID, IS, KID and the manifold metrics of features of the main extractor.

        Args:
            seed: draws KID's subsets, the splits of IS, and the images of each manifold.
            skip_few: leave FID or KID None, and say so, where the samples do not suffice.
        """
        return sample_metrics(
            samples,
            self.reference,
            self.extractor.name,
            self.params.evaluation,
            seed,
            self.reference_statistics,
            skip_few=skip_few,
        )

    def spreads(self, samples: Features) -> dict[str, float | None]:
        """Standard deviations of FID and IS under resampling; FID's is None where the samples are
        too few for an FID."""
        evaluation, seed, name = self.params.evaluation, self.params.seed, self.extractor.name
        spread = partial(bootstrap, repeats=evaluation.bootstrap, seed=seed)
        distance = partial(fid, reference=self.reference_statistics)
        score = partial(inception_score, splits=evaluation.is_splits, seed=seed)
        count, dimensions = samples.features.shape
        return {
            f"fid_{name}_std": spread(distance, samples.features) if count > dimensions else None,
            f"is_{name}_std": spread(score, samples.class_logits),
        }

    def scores(self, images: ImageSet, labels: Tensor) -> dict[str, float | None]:
        """FID, IS and the recognised share of a set that may be small.

        Args:
            labels: (M,).

        Returns:
            fid_<extractor>, is_<extractor> and class_accuracy. Where the samples are too few for a
            covariance the FID is None, and a line says so.
        """
        return self.scores_of(self.features(images), self.recognised(images), labels)

    def scores_of(
        self, samples: Features, recognised: Tensor, labels: Tensor
    ) -> dict[str, float | None]:
        """`scores` of features from the main extractor and the reference classifier's logits."""
        evaluation, name = self.params.evaluation, self.extractor.name
        distance = None
        with unless_few():
            distance = fid(samples.features, self.reference_statistics)
        return {
            f"fid_{name}": distance,
            f"is_{name}": inception_score(
                samples.class_logits, evaluation.is_splits, self.params.seed
            ),
            "class_accuracy": class_accuracy(recognised, labels),
        }
