"""Measures all sets of images with the same extractors, reference and settings."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES
from pipeline.data.images.shards import ImageShards
from pipeline.evaluation.feature_files import (
    reference_features,
    reference_statistics,
    stored_tensors,
)
from pipeline.evaluation.features import extract, open_extractor
from pipeline.evaluation.fid import Statistics, fid, statistics
from pipeline.evaluation.image_sets import ImageSet
from pipeline.evaluation.labels import proportional_labels
from pipeline.evaluation.metrics import (
    Manifolds,
    class_accuracy,
    drawn,
    drawn_reference,
    fid_infinity,
    inception_score,
    kid,
    manifolds,
    spreads,
    unless_few,
)
from pipeline.runtime.batches import BatchWorkers, Maker
from pipeline.weights.published import load_model

Metrics = dict[str, float | None]  # by name; None where the images are too few

# What the networks return for M images: of the main extractor, features (M, F) and logits
# (M, classes of the extractor); class_logits (M, classes of the data set) of the reference
# classifier; and second, features (M, G) of the second extractor, if it is used.
Outputs = dict[str, Tensor]


def open_networks(
    params: Params, root: Path, second: bool, device: torch.device
) -> Callable[..., Outputs]:
    """The networks that params name, as a function of images (B, C, H, W) uint8.

    Args:
        root: the project's folder.
        second: whether to use the second extractor.
    """
    main = params.evaluation.extractor
    other = params.evaluation.second_extractor if second else main
    classifier = load_model(root / CLASSIFIER, "classifier", device)
    extractors = {
        name: open_extractor(name, classifier, params.evaluation, device)
        for name in dict.fromkeys((main, "classifier", other))
    }

    def outputs(images: Tensor, *arguments: object) -> Outputs:
        found = {name: extract(extractor, images) for name, extractor in extractors.items()}
        (features, logits), (_, judged) = found[main], found["classifier"]
        assert logits is not None and judged is not None  # VGG alone has none
        # A copy, since both may be the same network's: safetensors refuses shared memory.
        every = {"features": features, "logits": logits, "class_logits": judged.clone()}
        return every | ({"second": found[other].features} if second else {})

    return outputs


class OnTheFly:
    """Makes images and returns their measurements instead of the images: 50,000 samples of 256×256
    pixels take 10 GB.

    Args:
        maker: opens a function that makes images (B, C, H, W) uint8.
        measures: each opens a function of the images and the arguments they were made from, which
            returns tensors (B, …) on the CPU by name.
    """

    def __init__(self, maker: Maker, measures: Sequence[Maker], device: torch.device):
        self.make, self.measures = maker.open(device), [each.open(device) for each in measures]

    def __call__(self, *arguments: object) -> dict[str, Tensor]:
        # Contiguous, as stored images are: for other strides a convolution could round differently.
        images = self.make(*arguments).contiguous()
        found: dict[str, Tensor] = {}
        for measure in self.measures:
            found |= measure(images, *arguments)
        return found


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
        self.extractor: str = params.evaluation.extractor
        self.reference = reference_features(self.extractor, root)  # (R, F)
        self.statistics = reference_statistics(params, root)

    @cached_property
    def second_reference(self) -> Tensor:
        """The second extractor's features (M, F) of at most `manifold_images` training images,
        drawn at random."""
        evaluation = self.params.evaluation
        features = reference_features(evaluation.second_extractor, self.root)
        return drawn(features, evaluation.manifold_images, self.params.seed)

    @cached_property
    def second_statistics(self) -> Statistics:
        """The training images' mean and covariance for the second extractor."""
        return statistics(reference_features(self.params.evaluation.second_extractor, self.root))

    def labels(self, count: int) -> Tensor:
        """Labels (count,) of the samples to measure, in the proportions of `evaluation.labels`."""
        images = ImageShards(self.root / IMAGES, "train")
        images_K = torch.from_numpy(images.labels).bincount(minlength=len(images.class_names))
        uniform = self.params.evaluation.labels == "uniform"
        return proportional_labels(count, torch.ones_like(images_K) if uniform else images_K)

    def outputs(self, images: ImageSet, folder: Path) -> Outputs:
        """The outputs of the measuring networks for stored images.

        Args:
            folder: in a run directory; where the outputs are stored, and found by a later call.
        """
        maker, name = self.on_the_fly(Maker(_reader, images)), f"features: {folder.name}"
        return stored_tensors(folder, len(images), self.workers, maker, name)

    def on_the_fly(self, maker: Maker, *others: Maker) -> Maker:
        """Gives the outputs for the images of a maker, which are not stored.

        Args:
            maker: of images (B, C, H, W) uint8.
            others: open what else is measured of them, as for `OnTheFly`.
        """
        root = self.root.absolute()
        networks = Maker(open_networks, self.params, root, self._second, here=self.networks)
        return Maker(OnTheFly, maker, (networks, *others))

    # A row of a result file

    def metrics(self, outputs: Outputs, labels: Tensor | None) -> Metrics:
        """All metrics of the main extractor, and FID, precision, recall, density and coverage of
        the second one (no FID of VGG: its 4,096 dimensions need too many samples). Each is named
        after its extractor and has its standard deviation over random halves of the set
        (`<metric>_std`). `fid_infinity_<extractor>` is extrapolated to infinitely many samples.

        Args:
            outputs: with those of the second extractor.
            labels: (M,); None leaves out the recognised share.
        """
        evaluation, seed = self.params.evaluation, self.params.seed
        second = evaluation.second_extractor
        every = torch.arange(len(outputs["features"]))
        classes = torch.zeros_like(every) if labels is None else labels

        def distribution(rows: Tensor, say: bool = False) -> Metrics:
            values = self._distribution(of_rows(outputs, rows), seed, say)
            if second != "vgg":
                values[f"fid_{second}"] = None
                with unless_few(say):
                    values[f"fid_{second}"] = fid(outputs["second"][rows], self.second_statistics)
            return values

        def neighbours(rows: Tensor, say: bool = False) -> Metrics:
            values, others = self.manifolds(outputs["features"][rows], seed, say), outputs["second"]
            return values | self._manifolds(others[rows], self.second_reference, second, say)

        def recognised(rows: Tensor) -> Metrics:
            return {} if labels is None else _recognised(of_rows(outputs, rows), labels[rows])

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
            infinity = fid_infinity(outputs["features"], classes, self.statistics, seed=seed)
        values[f"fid_infinity_{self.extractor}"] = infinity
        return values | {"samples": len(every), "is_splits": evaluation.is_splits}

    def sample_metrics(self, outputs: Outputs, labels: Tensor, seed: int) -> Metrics:
        """FID, IS, KID, precision, recall, density and coverage by the main extractor, and the
        recognised share.

        Args:
            labels: (M,).
            seed: draws KID's subsets, the splits of IS, and the images of each manifold.
        """
        values = self._distribution(outputs, seed) | self.manifolds(outputs["features"], seed)
        return values | _recognised(outputs, labels)

    def scores(self, outputs: Outputs, labels: Tensor, say: bool = True) -> Metrics:
        """FID, IS and the recognised share of a set, which may be small.

        Args:
            labels: (M,).
            say: print a line where the images are too few.
        """
        return self._fid_and_is(outputs, self.params.seed, say) | _recognised(outputs, labels)

    def manifolds(self, features: Tensor, seed: int, say: bool = True) -> Metrics:
        """Precision, recall, density and coverage of features (M, F) of the main extractor, on at
        most `manifold_images` of each side, drawn at random."""
        count = self.params.evaluation.manifold_images
        reference = drawn_reference(self.reference, count, seed)
        return self._manifolds(drawn(features, count, seed), reference, self.extractor, say)

    def _fid_and_is(self, outputs: Outputs, seed: int, say: bool) -> Metrics:
        distance = None
        with unless_few(say):
            distance = fid(outputs["features"], self.statistics)
        score = inception_score(outputs["logits"], self.params.evaluation.is_splits, seed)
        return {f"fid_{self.extractor}": distance, f"is_{self.extractor}": score}

    def _distribution(self, outputs: Outputs, seed: int, say: bool = True) -> Metrics:
        """FID, IS and KID."""
        values, distance = self._fid_and_is(outputs, seed, say), None
        subsets, size = self.params.evaluation.kid_subsets, self.params.evaluation.kid_subset_size
        with unless_few(say):
            how = {"subsets": subsets, "subset_size": size, "seed": seed}
            distance = kid(outputs["features"], self.reference, **how)
        return values | {f"kid_{self.extractor}": distance}

    def _manifolds(self, features: Tensor, reference: Tensor, name: str, say: bool) -> Metrics:
        values: Metrics = dict.fromkeys(Manifolds._fields)
        with unless_few(say):
            found = manifolds(features, reference, self.params.evaluation.neighbors)
            values = dict(found._asdict())
        return {f"{metric}_{name}": value for metric, value in values.items()}


def of_rows(outputs: Outputs, rows: Tensor) -> Outputs:
    """The outputs for some of the images."""
    return {name: tensor[rows] for name, tensor in outputs.items()}


def _recognised(outputs: Outputs, labels: Tensor) -> Metrics:
    return {"class_accuracy": class_accuracy(outputs["class_logits"], labels)}


def _reader(images: ImageSet, device: torch.device) -> Callable[[int, int], Tensor]:
    return images.read
