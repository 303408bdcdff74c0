"""Measures all sets of images with the same extractors, reference and settings."""

from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES
from pipeline.data.images.shards import ImageShards
from pipeline.evaluation.feature_files import (
    compute_part,
    reference_features,
    reference_statistics,
    stored_tensors,
)
from pipeline.evaluation.fid import fid
from pipeline.evaluation.image_sets import ImageSet
from pipeline.evaluation.labels import proportional_labels
from pipeline.evaluation.metrics import (
    Manifolds,
    class_accuracy,
    drawn,
    drawn_reference,
    inception_score,
    kid,
    manifolds,
    unless_few,
)
from pipeline.evaluation.outputs import OnTheFly, Outputs, open_networks
from pipeline.evaluation.uncertainty import fid_infinity, spreads
from pipeline.runtime.batches import BatchWorkers, Maker

Metrics = dict[str, float | None]  # by name; None where the images are too few


class Evaluator:
    """Measures image sets against the training images.

    Args:
        workers: run images through the networks.
        root: the project's folder; a worker may have another working directory.
        second: whether to use the second extractor, as `metrics` does.
    """

    def __init__(
        self, params: Params, workers: BatchWorkers, root: Path = Path(), second: bool = False
    ):
        self.params, self.workers, self.root, self._second = params, workers, root, second
        self.networks = open_networks(params, root, second, workers.device)
        self.extractor = self.networks.main
        self.reference = reference_features(self.extractor.name, root)  # (R, F)
        self.statistics = reference_statistics(params, root)

    @cached_property
    def second_reference(self) -> Tensor:
        """The second extractor's features (M, F) of at most `manifold_images` training images,
        drawn at random."""
        evaluation = self.params.evaluation
        features = reference_features(evaluation.second_extractor, self.root)
        return drawn(features, evaluation.manifold_images, self.params.seed)

    def labels(self, count: int) -> Tensor:
        """Labels (count,) of samples to measure, in the proportions of `evaluation.labels`."""
        images_K = self._images_K
        uniform = self.params.evaluation.labels == "uniform"
        return proportional_labels(count, torch.ones_like(images_K) if uniform else images_K)

    @cached_property
    def _images_K(self) -> Tensor:
        """The number of training images of each class, (classes,)."""
        images = ImageShards(self.root / IMAGES, "train")
        return torch.from_numpy(images.labels).bincount(minlength=len(images.class_names))

    def outputs(self, images: ImageSet, folder: Path) -> Outputs:
        """The outputs of the measuring networks for stored images.

        Args:
            folder: in a run directory; where the outputs are stored, and found by a later call.
        """
        here = partial(compute_part, images, self.networks.run)
        maker = Maker(_open_part, images, self.params, self.root, self._second, here=here)
        name = f"features: {folder.name}"
        return Outputs.of(stored_tensors(folder, len(images), self.workers, maker, name))

    def on_the_fly(self, maker: Maker, *others: Maker) -> Maker:
        """Measures the images of a maker, which are not stored, for `Outputs.of`.

        Args:
            maker: of images (B, C, H, W) uint8.
            others: open what else is measured of them, as for `OnTheFly`.
        """
        root = self.root.absolute()
        networks = Maker(open_networks, self.params, root, self._second, here=self.networks)
        return Maker(OnTheFly, maker, (networks, *others))

    # A row of a result file

    def metrics(self, outputs: Outputs, labels: Tensor | None) -> Metrics:
        """Every metric, named after its extractor; its standard deviation over random halves of the
        set, `<metric>_std`; and `fid_infinity_<extractor>`, the FID of infinitely many samples.

        Args:
            outputs: with those of the second extractor.
            labels: (M,); None leaves out the recognised share.
        """
        assert outputs.second is not None, "the evaluator was opened without the second extractor"
        evaluation, seed, second = self.params.evaluation, self.params.seed, outputs.second
        count = len(outputs.features)
        classes = torch.zeros(count, dtype=torch.long) if labels is None else labels

        def distribution(rows: Tensor, say: bool = False) -> Metrics:
            return self._distribution(outputs.of_rows(rows), seed, say)

        def neighbours(rows: Tensor, say: bool = False) -> Metrics:
            values = self.manifolds(outputs.features[rows], seed, say)
            name, reference = evaluation.second_extractor, self.second_reference
            return values | self._manifolds(second[rows], reference, name, say)

        def recognised(rows: Tensor) -> Metrics:
            if labels is None:
                return {}
            return {"class_accuracy": class_accuracy(outputs.class_logits[rows], labels[rows])}

        every = torch.arange(count)
        # Neighbours are searched among at most `manifold_images`, whatever the size of the set. So
        # their spread comes from halves of these: half of a larger set would have as many.
        near = drawn(every, evaluation.manifold_images, seed)
        values = distribution(every, say=True) | neighbours(near, say=True) | recognised(every)
        halved = partial(spreads, repeats=evaluation.halves, seed=seed)
        spread = halved(lambda rows: distribution(rows) | recognised(rows), classes)
        spread |= halved(lambda rows: neighbours(near[rows]), classes[near])
        values |= {f"{name}_std": spread[f"{name}_std"] for name in values}
        infinity = None
        with unless_few():
            infinity = fid_infinity(outputs.features, classes, self.statistics, seed=seed)
        values[f"fid_infinity_{self.extractor.name}"] = infinity
        return values | {"samples": count, "is_splits": evaluation.is_splits}

    def sample_metrics(self, outputs: Outputs, labels: Tensor, seed: int) -> Metrics:
        """FID, IS, KID, precision, recall, density and coverage by the main extractor, and the
        recognised share.

        Args:
            labels: (M,).
            seed: draws KID's subsets, the splits of IS, and the images of each manifold.
        """
        values = self._distribution(outputs, seed) | self.manifolds(outputs.features, seed)
        return values | {"class_accuracy": class_accuracy(outputs.class_logits, labels)}

    def scores(self, outputs: Outputs, labels: Tensor, say: bool = True) -> Metrics:
        """FID, IS and the recognised share of a set, which may be small.

        Args:
            labels: (M,).
            say: print a line where the images are too few.
        """
        values = self._fid_and_is(outputs, self.params.seed, say)
        return values | {"class_accuracy": class_accuracy(outputs.class_logits, labels)}

    def manifolds(self, features: Tensor, seed: int, say: bool = True) -> Metrics:
        """Precision, recall, density and coverage of features (M, F) of the main extractor, on at
        most `manifold_images` of each side, drawn at random."""
        count = self.params.evaluation.manifold_images
        reference = drawn_reference(self.reference, count, seed)
        return self._manifolds(drawn(features, count, seed), reference, self.extractor.name, say)

    def _fid_and_is(self, outputs: Outputs, seed: int, say: bool) -> Metrics:
        distance = None
        with unless_few(say):
            distance = fid(outputs.features, self.statistics)
        score = inception_score(outputs.logits, self.params.evaluation.is_splits, seed)
        return {f"fid_{self.extractor.name}": distance, f"is_{self.extractor.name}": score}

    def _distribution(self, outputs: Outputs, seed: int, say: bool = True) -> Metrics:
        """FID, IS and KID."""
        values, distance = self._fid_and_is(outputs, seed, say), None
        subsets, size = self.params.evaluation.kid_subsets, self.params.evaluation.kid_subset_size
        with unless_few(say):
            how = {"subsets": subsets, "subset_size": size, "seed": seed}
            distance = kid(outputs.features, self.reference, **how)
        return values | {f"kid_{self.extractor.name}": distance}

    def _manifolds(self, features: Tensor, reference: Tensor, name: str, say: bool) -> Metrics:
        values: Metrics = dict.fromkeys(Manifolds._fields)
        with unless_few(say):
            found = manifolds(features, reference, self.params.evaluation.neighbors)
            values = dict(found._asdict())
        return {f"{metric}_{name}": value for metric, value in values.items()}


def _open_part(
    images: ImageSet, params: Params, root: Path, second: bool, device: torch.device
) -> partial[dict[str, Tensor]]:
    return partial(compute_part, images, open_networks(params, root, second, device).run)
