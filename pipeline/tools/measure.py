"""`maskgit measure`: compares any image set with the training images."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.fid import statistics
from pipeline.evaluation.image_files import open_images, size_text
from pipeline.evaluation.image_sets import ImageSet
from pipeline.runtime.batches import BatchWorkers
from pipeline.runtime.device import pick_device
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json
from pipeline.runtime.provenance import require_current


def measured(params: Params, path: Path) -> dict[str, float | None]:
    """Compute the metrics of the images at `path`, with the training images as the reference.
    Returns values by name; `<name>_std` is a metric's standard deviation, if known. An `.npz` with
    labels is measured as samples are in the stage `evaluate`. Without labels, the subsets for FID∞
    and for standard deviations are not balanced by class. Raises a `UserError` if the images cannot
    be read, have the wrong size or unknown labels, or are too few for FID, or if the features of
    the training images are missing or out of date."""
    require_current("features")
    images, data = open_images(path), params.data
    labels = _labels(images, path)
    ours = (data.channels, data.image_size, data.image_size)
    if data.channels == 1 and images.shape[0] == 3:
        images = Grey(images, path)
    if images.shape != ours:
        raise UserError(
            str(path),
            f"the images are {size_text(images.shape)}, but the training images are "
            f"{size_text(ours)} (data.image_size, data.channels)",
            "convert the images",
        )
    evaluator = Evaluator(params, BatchWorkers(pick_device()), second=True)
    with tempfile.TemporaryDirectory() as folder:
        outputs = evaluator.outputs(images, Path(folder, "images"))
        statistics(outputs["features"])  # raises if too few
        return evaluator.metrics(outputs, labels)


def _labels(images: ImageSet, path: Path) -> Tensor | None:
    """The labels (n,) int64 of an image set; None if the file has no labels."""
    labels: Tensor | None = getattr(images, "labels", None)
    classes = len(read_json(IMAGES / "manifest.json", "class_names")["class_names"])
    if labels is not None and not bool(((labels >= 0) & (labels < classes)).all()):
        raise UserError(
            str(path),
            f"the labels go from {int(labels.min())} to {int(labels.max())}, but the data set has "
            f"the classes 0 to {classes - 1}",
            "use only labels of these classes, or no labels",
        )
    return labels


class Grey:
    """Reads grey images that are stored as RGB, as the ADM suite's format requires."""

    def __init__(self, images: ImageSet, path: Path):
        self._images, self._path = images, path
        self.shape = (1, *images.shape[1:])

    def __len__(self) -> int:
        return len(self._images)

    def read(self, start: int, stop: int) -> Tensor:
        batch = self._images.read(start, stop)
        grey = batch[:, :1]
        if not torch.equal(batch, grey.expand_as(batch)):
            reason = "images are in colour, but the training images are grey (data.channels)"
            raise UserError(str(self._path), reason, "convert the images")
        return grey.contiguous()


def table(values: dict[str, float | None]) -> str:
    """Format one line per metric, with the standard deviation if it is known."""
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
