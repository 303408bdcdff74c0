"""`maskgit measure`: the metrics of any image set."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES
from pipeline.data.images.shards import read_manifest
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.image_files import NpzImages, open_images, size_text
from pipeline.evaluation.images import ImageSet
from pipeline.evaluation.statistics import statistics
from pipeline.runtime.batches import Alone
from pipeline.runtime.device import pick_device
from pipeline.runtime.errors import UserError
from pipeline.runtime.provenance import require_current


def measured(params: Params, path: Path) -> dict[str, float | None]:
    """Metrics of an image set against the training images; `<name>_std` where there is one. With
    the labels of an `.npz` as Table 1 measures them; without any, FID∞ and the stds are of subsets
    whose classes are not balanced.

    Raises:
        UserError: the set cannot be read, has images of another size, labels of other classes, or
            too few images for FID; or the data set or the classifier are not made yet, or out of
            date.
    """
    require_current("prepare", "train_classifier")
    images, data = open_images(path), params.data
    labels = _labels(images, path) if isinstance(images, NpzImages) else None
    ours = (data.channels, data.image_size, data.image_size)
    if data.channels == 1 and images.shape[0] == 3:
        images = Grey(images, path)
    if images.shape != ours:
        raise UserError(
            f"{path} holds images of {size_text(images.shape)}, and the training images are "
            f"{size_text(ours)} (data.image_size, data.channels); convert them"
        )
    evaluator = Evaluator(params, Alone(pick_device()))
    statistics(evaluator.features(images).features, f"images in {path}")  # raises if too few
    return evaluator.measure(images, labels)


def _labels(images: NpzImages, path: Path) -> Tensor | None:
    """(n,) int64, of the data set's classes; None where the file has none."""
    classes = len(read_manifest(IMAGES)["class_names"])
    labels = images.labels
    if labels is not None and not bool(((labels >= 0) & (labels < classes)).all()):
        raise UserError(
            f"{path} has labels from {int(labels.min())} to {int(labels.max())}, and the data set "
            f"the classes 0 to {classes - 1}; give labels of these, or none"
        )
    return labels


class Grey:
    """Grey images that were written as RGB, as the ADM suite's files have to be."""

    def __init__(self, images: ImageSet, path: Path):
        self._images, self._path = images, path
        self.shape = (1, *images.shape[1:])
        self.content_hash = f"grey {images.content_hash}"

    def __len__(self) -> int:
        return len(self._images)

    def read(self, start: int, stop: int) -> Tensor:
        return self._grey(self._images.read(start, stop))

    def batches(self, size: int) -> Iterator[Tensor]:
        return map(self._grey, self._images.batches(size))

    def _grey(self, batch: Tensor) -> Tensor:
        grey = batch[:, :1]
        if not torch.equal(batch, grey.expand_as(batch)):
            raise UserError(
                f"{self._path} holds images in colour, and the training images are grey "
                f"(data.channels); convert them"
            )
        return grey.contiguous()


def table(values: dict[str, float | None]) -> str:
    """A line for each metric, with the standard deviation where there is one."""
    from tabulate import tabulate

    rows = []
    for name, value in values.items():
        if not name.endswith("_std"):
            spread = values.get(f"{name}_std")
            rows.append((name, _number(value), "" if spread is None else f"std {spread:.2g}"))
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
