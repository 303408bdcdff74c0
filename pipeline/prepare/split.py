"""Splits a data set, and checks the number of training images."""

import numpy as np

from pipeline.data.images.shards import Source
from pipeline.runtime.errors import UserError


def stratified_split(source: Source, val_fraction: float, seed: int) -> dict[str, list[int]]:
    """The source's own split, or a fraction of each class held out.

    Returns:
        Item indices of each split, in a seeded order.

    Raises:
        UserError: a class has too few images to be in both splits.
    """
    rng = np.random.default_rng(seed)
    by_class: dict[int, list[int]] = {label: [] for label in range(len(source.class_names))}
    split: dict[str, list[int]] = {"train": [], "val": []}
    for index, item in enumerate(source.items):
        if item.split is None:
            by_class[item.label].append(index)
        else:
            split[item.split].append(index)
    for label, indices in by_class.items():
        if not indices:
            continue
        if len(indices) < 2:
            reason = f"class '{source.class_names[label]}' has one image"
            raise UserError("data.source", reason, "add one: training and validation need one each")
        shuffled = rng.permutation(indices).tolist()
        held_out = min(max(1, round(val_fraction * len(shuffled))), len(shuffled) - 1)
        split["val"] += shuffled[:held_out]
        split["train"] += shuffled[held_out:]
    found = {source.items[i].label for i in split["train"]}
    for label, name in enumerate(source.class_names):
        if label not in found:
            raise UserError("data.source", f"class '{name}' has no training image", "add some")
    return {name: rng.permutation(indices).tolist() for name, indices in split.items()}


def require_training_images(count: int, dimensions: int, subset: int, neighbors: int) -> None:
    """Refuse fewer training images than the metrics need, before anything is trained.

    Args:
        dimensions: of the features whose covariance FID takes; 0 for none.
        subset: images of a KID subset.
        neighbors: of each image, in precision and recall.

    Raises:
        UserError: a metric could not be measured.
    """
    for least, what in (
        (dimensions + 1, f"FID with the {dimensions} features of evaluation.extractor"),
        (subset, f"evaluation.kid_subset_size {subset}"),
        (neighbors + 1, f"evaluation.neighbors {neighbors}"),
    ):
        if count < least:
            reason = f"{count} training images are too few: {what} needs {least}"
            way_out = "add images, lower data.val_fraction, or change that param"
            raise UserError("data.source", reason, way_out)
