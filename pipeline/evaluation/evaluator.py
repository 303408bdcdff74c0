"""Measures all sets of images with the same extractors, reference and settings."""

from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES
from pipeline.data.images.shards import ImageShards
from pipeline.evaluation.feature_files import (
    cached_features,
    extraction,
    features_folder,
    kept_statistics,
    load_features,
    reference_features,
)
from pipeline.evaluation.features import (
    Extractor,
    Features,
    open_extractor,
)
from pipeline.evaluation.fid import fid
from pipeline.evaluation.images import ImageSet
from pipeline.evaluation.labels import proportional_labels
from pipeline.evaluation.metrics import (
    class_accuracy,
    distribution_metrics,
    drawn,
    inception_score,
    manifold_metrics,
    sample_metrics,
    unless_few,
)
from pipeline.evaluation.seen import Networks, Seen, Shown, open_networks
from pipeline.evaluation.statistics import load_statistics
from pipeline.evaluation.uncertainty import fid_infinity, spreads
from pipeline.runtime.batches import Alone, Maker
from pipeline.runtime.project import of_project
from pipeline.weights.published import load_model


class Evaluator:
    """Measures image sets against the training images.

    Args:
        workers: who runs images through the networks.
        root: the project's folder; a worker may have another working directory.
        cache_dir: of features that are kept, if it is not `features_folder`.
    """

    def __init__(
        self,
        params: Params,
        workers: Alone,
        root: Path = Path(),
        cache_dir: Path | None = None,
    ):
        self.params, self.workers, self.root = params, workers, root
        self._classifier = load_model(root / CLASSIFIER, "classifier", workers.device)
        evaluation = params.evaluation
        self.judge, self.extractor = map(self._open, ("classifier", evaluation.extractor))
        self.cache_dir = cache_dir or features_folder(params)
        reference = self._reference(self.extractor)
        self.reference = load_features(reference)
        published = evaluation.reference_statistics
        self.reference_statistics = (
            load_statistics(root / of_project(published))
            if published
            else kept_statistics(reference)
        )

    def _open(self, name: str) -> Extractor:
        evaluation, device = self.params.evaluation, self.workers.device
        return open_extractor(name, self._classifier, evaluation, device)

    def _reference(self, extractor: Extractor) -> Path:
        return reference_features(extractor, self.params, self.workers, self.root, self.cache_dir)

    @cached_property
    def second(self) -> tuple[Extractor, Tensor]:
        """The second extractor, and the features (M, F) of its reference manifold: those of at most
        `manifold_images` training images, drawn at random."""
        evaluation = self.params.evaluation
        extractor = self._open(evaluation.second_extractor)
        reference = load_features(self._reference(extractor)).features
        return extractor, drawn(reference, evaluation.manifold_images, self.params.seed)

    def labels(self, count: int) -> Tensor:
        """Labels (count,) of samples to measure, as `evaluation.labels` says."""
        images_K = self._images_K
        uniform = self.params.evaluation.labels == "uniform"
        return proportional_labels(count, torch.ones_like(images_K) if uniform else images_K)

    @cached_property
    def _images_K(self) -> Tensor:
        """The number of training images of each class, (classes,)."""
        images = ImageShards(self.root / IMAGES, "train")
        return torch.from_numpy(images.labels).bincount(minlength=len(images.class_names))

    def features(self, images: ImageSet) -> Features:
        """Features of the images, from the main extractor."""
        return self._features(images, self.extractor)

    def recognised(self, images: ImageSet) -> Tensor:
        """Logits (M, classes) of the reference classifier."""
        return self._features(images, self.judge).class_logits

    def _features(self, images: ImageSet, extractor: Extractor) -> Features:
        maker = extraction(extractor, images, self.params, self.root)
        return cached_features(images, extractor, self.cache_dir, self.workers, maker)

    def seen(self, images: ImageSet) -> Seen:
        """What the main extractor and the reference classifier see in images that are kept."""
        return Seen(self.features(images), self.recognised(images))

    def shown(self, maker: Maker, *looks: Maker, second: bool = False) -> Maker:
        """A maker whose images are looked at and not kept, for a `Seen`.

        Args:
            maker: of images (B, C, H, W) uint8.
            looks: what looks at them besides the networks.
            second: whether the second extractor looks too.
        """
        root, here = self.root.absolute(), self.networks(second)
        networks = Maker(open_networks, self.params, root, second, here=here)
        return Maker(Shown, maker, (networks, *looks))

    def networks(self, second: bool = False) -> Networks:
        """Those of this process, for a `Seen`.

        Args:
            second: whether the second extractor looks too.
        """
        return Networks(self.extractor, self.judge, self.second[0] if second else None)

    def measure(self, images: ImageSet, labels: Tensor | None = None) -> dict[str, float | None]:
        """`metrics_of` images.

        Args:
            labels: (M,); with them the share that the classifier recognises is measured too.
        """
        recognised = None if labels is None else self.recognised(images)
        others = self._features(images, self.second[0]).features
        return self.metrics_of(Seen(self.features(images), recognised, others), labels)

    def metrics_of(self, seen: Seen, labels: Tensor | None) -> dict[str, float | None]:
        """Every metric of a set, each named after its extractor; as `<metric>_std` the standard
        deviations that halves of the set tell of; and as fid_infinity_<extractor> what FID would be
        of infinitely many samples.

        Args:
            seen: with what the second extractor sees.
            labels: (M,); as for `measure`.
        """
        (samples, recognised, others), count = seen, len(seen.samples.features)
        assert others is not None, "the second extractor has not looked"
        classes = torch.zeros(count, dtype=torch.long) if labels is None else labels
        evaluation, seed = self.params.evaluation, self.params.seed

        def distribution(rows: Tensor, say: bool = False) -> dict[str, float | None]:
            part = Features(samples.features[rows], samples.class_logits[rows])
            return self._distribution(part, say)

        def neighbours(rows: Tensor, say: bool = False) -> dict[str, float | None]:
            return self._neighbours(samples.features[rows], others[rows], say)

        def accuracy(rows: Tensor) -> dict[str, float | None]:
            if recognised is None or labels is None:
                return {}
            return {"class_accuracy": class_accuracy(recognised[rows], classes[rows])}

        every = torch.arange(count)
        # Neighbours are found among so many images at most. Their spread is that of halves of
        # these: half of a larger set has as many, and so it would differ from the whole by less.
        near = drawn(every, evaluation.manifold_images, seed)
        values = distribution(every, say=True) | neighbours(near, say=True) | accuracy(every)
        halved = partial(spreads, repeats=evaluation.halves, seed=seed)
        spread = halved(lambda rows: distribution(rows) | accuracy(rows), classes)
        spread |= halved(lambda rows: neighbours(near[rows]), classes[near])
        values |= {f"{name}_std": spread[f"{name}_std"] for name in values}
        infinity = None
        with unless_few():
            infinity = fid_infinity(samples.features, classes, self.reference_statistics, seed=seed)
        values[f"fid_infinity_{self.extractor.name}"] = infinity
        return values | {"samples": count, "is_splits": evaluation.is_splits}

    def _distribution(self, samples: Features, say: bool) -> dict[str, float | None]:
        """FID, IS and KID of features of the main extractor; None where they do not suffice."""
        return distribution_metrics(
            samples,
            self.reference,
            self.extractor.name,
            self.params.evaluation,
            self.params.seed,
            self.reference_statistics,
            skip_few=True,
            say=say,
        )

    def _neighbours(self, samples: Tensor, others: Tensor, say: bool) -> dict[str, float | None]:
        """Precision, recall, density and coverage of features of the main extractor, and of those
        of the second; None where they do not suffice."""
        extractor, reference = self.second
        values: dict[str, float | None] = {}
        for features, known, name in (
            (samples, self.reference.features, self.extractor.name),
            (others, reference, extractor.name),
        ):
            evaluation, seed = self.params.evaluation, self.params.seed
            values |= manifold_metrics(
                features, known, name, evaluation, seed, skip_few=True, say=say
            )
        return values

    def sample_metrics(self, samples: Features, seed: int) -> dict[str, float | None]:
        """FID, IS, KID and the manifold metrics of features of the main extractor.

        Args:
            seed: draws KID's subsets, the splits of IS, and the images of each manifold.

        Raises:
            TooFew: the samples are too few for one of them.
        """
        return sample_metrics(
            samples,
            self.reference,
            self.extractor.name,
            self.params.evaluation,
            seed,
            self.reference_statistics,
        )

    def sampled(self, seen: Seen, labels: Tensor, seed: int) -> dict[str, float | None]:
        """`sample_metrics` of samples of labels (M,), and the share that is recognised."""
        values = self.sample_metrics(seen.samples, seed)
        return values | {"class_accuracy": class_accuracy(seen.class_logits, labels)}

    def scores(self, seen: Seen, labels: Tensor, say: bool = True) -> dict[str, float | None]:
        """FID, IS and the recognised share of a set that may be small.

        Args:
            labels: (M,).
            say: print a line where the samples are too few.

        Returns:
            fid_<extractor>, is_<extractor> and class_accuracy. Where the samples are too few for a
            covariance the FID is None.
        """
        evaluation, name, distance = self.params.evaluation, self.extractor.name, None
        with unless_few(say=say):
            distance = fid(seen.samples.features, self.reference_statistics)
        score = inception_score(seen.samples.class_logits, evaluation.is_splits, self.params.seed)
        accuracy = class_accuracy(seen.class_logits, labels)
        return {f"fid_{name}": distance, f"is_{name}": score, "class_accuracy": accuracy}
