"""Splitting a data set, and whether its training images suffice."""

import numpy as np

from pipeline.prepare.source import Source
from pipeline.runtime.errors import UserError


def stratified_split(source: Source, val_fraction: float, seed: int) -> dict[str, list[int]]:
    """Item indices of each split, in a seeded order; the source's own split where it has one.

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
            raise UserError(
                f"data.source: class '{source.class_names[label]}' has one image; training and "
                f"validation need one each"
            )
        shuffled = rng.permutation(indices).tolist()
        held_out = min(max(1, round(val_fraction * len(shuffled))), len(shuffled) - 1)
        split["val"] += shuffled[:held_out]
        split["train"] += shuffled[held_out:]
    found = {source.items[i].label for i in split["train"]}
    for label, name in enumerate(source.class_names):
        if label not in found:
            raise UserError(f"data.source: class '{name}' has no training image; add some")
    return {name: rng.permutation(indices).tolist() for name, indices in split.items()}


def require_training_images(count: int, dimensions: int, subset: int, neighbors: int) -> None:
    """Refuse fewer training images than samples can be measured against, before any is trained on.

    Args:
        dimensions: of the features of which FID takes the covariance; 0 for none.
        subset: images of KID's; neighbors: of each image, in precision and recall.

    Raises:
        UserError: a metric could not be measured.
    """
    for least, what in (
        (dimensions + 1, f"FID with the {dimensions} features of evaluation.extractor"),
        (subset, f"evaluation.kid_subset_size {subset}"),
        (neighbors + 1, f"evaluation.neighbors {neighbors}"),
    ):
        if count < least:
            raise UserError(
                f"data.source: {count} training images are too few to measure samples against: "
                f"{what} wants {least}; add some, or lower data.val_fraction or what wants them"
            )
