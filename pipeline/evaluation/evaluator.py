"""Computes metrics of image sets, all with the same extractors, reference images and settings."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES
from pipeline.data.images.shards import ImageShards
from pipeline.evaluation import features, metrics
from pipeline.evaluation.fid import fid, statistics
from pipeline.evaluation.image_sets import ImageSet
from pipeline.evaluation.metrics import unless_few
from pipeline.runtime.batches import BatchWorkers, Maker
from pipeline.weights.published import load_model

Metrics = dict[str, float | None]  # name -> value; None if the images are too few

# The networks' outputs for M images: `features` (M, F) and `logits` (M, extractor's classes) of the
# main extractor, `class_logits` (M, data set's classes) of the reference classifier, and, if the
# second extractor is used, its features `second` (M, G).
Outputs = dict[str, Tensor]


def open_networks(params: Params, second: bool, device: torch.device) -> Callable[..., Outputs]:
    """Load `evaluation.extractor`, the classifier and, if `second`, `evaluation.second_extractor`.
    Returns a function that maps images (B, C, H, W) uint8 to the networks' outputs."""
    main = params.evaluation.extractor
    other = params.evaluation.second_extractor if second else main
    classifier = load_model(CLASSIFIER, "classifier", device)
    extractors = {
        name: features.open_extractor(name, classifier, params.evaluation, device)
        for name in {main, "classifier", other}
    }

    def outputs(images: Tensor, *arguments: object) -> Outputs:
        found = {name: extract(images) for name, extract in extractors.items()}
        logits, judged = found[main].logits, found["classifier"].logits
        assert logits is not None and judged is not None  # only VGG returns no logits
        # A copy, since both logits may be the same tensor: safetensors refuses shared memory.
        every = {"features": found[main].features, "logits": logits, "class_logits": judged.clone()}
        return every | ({"second": found[other].features} if second else {})

    return outputs


def open_measured(
    maker: Maker, measures: Sequence[Maker], device: torch.device
) -> Callable[..., dict[str, Tensor]]:
    """Return a function of `*arguments`. It calls make(*arguments), which returns images (B, C, H,
    W) uint8, then each measure(images, *arguments), and returns their tensors (B, …) in one dict,
    without the images. (`maker` opens `make`, and `measures` open the functions `measure`.)"""
    make, opened = maker.open(device), [measure.open(device) for measure in measures]

    def measured(*arguments: object) -> dict[str, Tensor]:  # no images: 50,000 may take 10 GB
        # Contiguous, like stored images: a convolution may round differently for other strides.
        images = make(*arguments).contiguous()
        return {name: x for f in opened for name, x in f(images, *arguments).items()}

    return measured


class Evaluator:
    """Computes metrics of image sets, with the training images as the reference. `workers` compute
    features. If `second`, loads `evaluation.second_extractor`, which the method `metrics` needs."""

    def __init__(self, params: Params, workers: BatchWorkers, second: bool = False):
        self.params, self.workers, self._second = params, workers, second
        self.networks = open_networks(params, second, workers.device)
        self.extractor: str = params.evaluation.extractor
        self.reference = features.reference_features(self.extractor)  # (R, F)
        self.statistics = features.reference_statistics(params)
        if second:
            other = params.evaluation.second_extractor
            self.second_reference = features.reference_features(other)  # (R, G)
            vgg = other == "vgg"  # whose 4,096 dimensions need too many images
            self.second_statistics = None if vgg else unless_few(statistics, self.second_reference)

    def labels(self, count: int) -> Tensor:
        """Labels (count,) for samples, in the class proportions that `evaluation.labels` names."""
        images = ImageShards(IMAGES, "train")
        images_K = torch.from_numpy(images.labels).bincount(minlength=len(images.class_names))
        uniform = self.params.evaluation.labels == "uniform"
        return proportional_labels(count, torch.ones_like(images_K) if uniform else images_K)

    def outputs(self, images: ImageSet, folder: Path) -> Outputs:
        """The extractors' outputs for stored images: loaded from `folder` (in a run directory), or,
        if the folder does not exist, computed and stored there."""
        maker, name = self.on_the_fly(Maker(_reader, images)), f"features: {folder.name}"
        return features.stored_tensors(folder, len(images), self.workers, maker, name)

    def on_the_fly(self, maker: Maker, *others: Maker) -> Maker:
        """Return a `Maker` (a picklable factory) of a function that makes images with `maker`,
        measures them with the extractors and `others`, and returns the measured tensors."""
        networks = Maker(open_networks, self.params, self._second, here=self.networks)
        return Maker(open_measured, maker, (networks, *others))

    # Metrics of one row of a result file

    def metrics(self, outputs: Outputs, labels: Tensor | None) -> Metrics:
        """All metrics of M images, from the extractors' outputs. An extractor's metrics are named
        `<metric>_<extractor>`. The second extractor is used only for precision, recall, density,
        coverage and FID (no FID with VGG: its 4,096 dimensions need too many samples). `<name>_std`
        is the standard deviation of `<name>` over random halves of the set, and `fid_infinity_…` is
        FID extrapolated to infinitely many samples. If `labels` (M,) is None, the result has no
        `class_accuracy`."""
        evaluation, seed = self.params.evaluation, self.params.seed
        main, second = outputs["features"], outputs["second"]
        every = torch.arange(len(main))
        classes = torch.zeros_like(every) if labels is None else labels

        def distribution(rows: Tensor) -> Metrics:
            own = None if labels is None else labels[rows]
            values = self.scores(of_rows(outputs, rows), own) | self.distances(main[rows], seed)
            if self.second_statistics:
                name = f"fid_{evaluation.second_extractor}"
                values[name] = unless_few(fid, second[rows], self.second_statistics)
            return values

        def neighbours(rows: Tensor) -> Metrics:
            values = self.manifolds(main[rows], seed)
            return values | self.manifolds(second[rows], seed, second=True)

        # `neighbours` uses at most `manifold_images` of the set. Its standard deviation is over
        # halves of these images, since half of a large set may have `manifold_images` images too.
        near = metrics.drawn(every, evaluation.manifold_images, seed)
        halved = partial(metrics.spreads, repeats=evaluation.halves, seed=seed)
        values = distribution(every) | neighbours(near) | halved(distribution, classes)
        values |= halved(lambda rows: neighbours(near[rows]), classes[near])
        infinity = unless_few(metrics.fid_infinity, main, classes, self.statistics, seed=seed)
        values[f"fid_infinity_{self.extractor}"] = infinity
        return values | {"samples": len(every), "is_splits": evaluation.is_splits}

    def scores(self, outputs: Outputs, labels: Tensor | None, seed: int | None = None) -> Metrics:
        """FID, IS and, if labels (M,) are given, `class_accuracy`: the share of samples that the
        classifier assigns to their labels. `seed` (default: the param `seed`) draws IS's splits."""
        seed = self.params.seed if seed is None else seed
        distance = unless_few(fid, outputs["features"], self.statistics)
        score = metrics.inception_score(outputs["logits"], self.params.evaluation.is_splits, seed)
        values = {f"fid_{self.extractor}": distance, f"is_{self.extractor}": score}
        if labels is not None:
            values["class_accuracy"] = metrics.class_accuracy(outputs["class_logits"], labels)
        return values

    def distances(self, features: Tensor, seed: int) -> Metrics:
        """KID between the features (M, F) of samples and the features of the training images."""
        subsets, size = self.params.evaluation.kid_subsets, self.params.evaluation.kid_subset_size
        how = {"subsets": subsets, "subset_size": size, "seed": seed}
        distance = unless_few(metrics.kid, features, self.reference, **how)
        return {f"kid_{self.extractor}": distance}

    def manifolds(self, features: Tensor, seed: int, second: bool = False) -> Metrics:
        """Precision, recall, density and coverage of features (M, F), which `second_extractor` made
        if `second`. At most `manifold_images` samples and reference images are drawn at random."""
        evaluation = self.params.evaluation
        name = evaluation.second_extractor if second else self.extractor
        reference = self.second_reference if second else self.reference
        near = metrics.drawn(features, evaluation.manifold_images, seed)
        others = metrics.drawn_reference(reference, evaluation.manifold_images, seed)
        found = unless_few(metrics.manifolds, near, others, evaluation.neighbors)
        values = found or dict.fromkeys(metrics.MANIFOLDS)
        return {f"{metric}_{name}": value for metric, value in values.items()}


def proportional_labels(count: int, images_K: Tensor) -> Tensor:
    """Labels (count,), whose class proportions follow the image counts `images_K` (classes,) by
    Sainte-Laguë's method. For every n, the first n labels have nearly the same proportions."""
    classes, total = len(images_K), images_K.sum().double()
    most_K = (images_K * (count + classes / 2) / total).long() + 1  # no class can get more
    label = torch.arange(classes).repeat_interleave(most_K)
    turn = torch.arange(len(label)) - (most_K.cumsum(0) - most_K)[label]
    return label[((turn + 0.5) / images_K[label].double()).argsort(stable=True)][:count]


def kept_of_each(labels: Tensor, acceptance: float) -> Tensor:
    """The number of samples to keep of each class, (classes,), out of M samples with `labels` (M,).
    The total is acceptance · M (rounded, at least 1); the class proportions match `labels`."""
    of_each_K = labels.bincount()
    kept = proportional_labels(max(1, round(acceptance * len(labels))), of_each_K)
    return kept.bincount(minlength=len(of_each_K))


def of_rows(outputs: Outputs, rows: Tensor) -> Outputs:
    """Select the given rows (indices of images) of each tensor of the extractors' outputs."""
    return {name: tensor[rows] for name, tensor in outputs.items()}


def _reader(images: ImageSet, device: torch.device) -> Callable[[int, int], Tensor]:
    return images.read
