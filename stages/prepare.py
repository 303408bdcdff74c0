"""Writes the data set's images as shards, with a manifest and a contact sheet (an image grid)."""

from pathlib import Path

import numpy as np
from PIL.Image import Image

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, RESULTS
from pipeline.data.images.pixels import grid_picture, save_picture
from pipeline.data.images.shards import ImageShards, View, write_manifest, write_shards
from pipeline.prepare.datasets import open_source, stratified_split
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import publish_folder, tree_hash, value_hash, write_json
from pipeline.runtime.stage import Stage


def main(params: Params) -> str:
    with Stage("prepare", params) as stage:
        data = params.data
        source = open_source(data.source, data.download_dir, params.stored_side)
        splits = stratified_split(source, params.data.val_fraction, params.seed)
        _require_enough(len(splits["train"]), params)
        # A folder of images may change while params stay the same. Shards of a killed run are
        # reused only if the items and their order are the same, and no image was written since.
        items = value_hash([source.items, source.version])
        folder = stage.folder(items=items) / "shards"
        shards = {
            split: write_shards(source, indices, split, params.data.shard_size, folder)
            for split, indices in splits.items()
        }
        manifest = write_manifest(folder, source.class_names, params.data.source, shards)
        metrics: dict[str, float] = {f"{split}_images": len(i) for split, i in splits.items()}
        metrics["classes"] = len(source.class_names)
        # The accuracy of always guessing the largest class.
        labels = np.array([source.items[i].label for i in splits["train"]])
        metrics["largest_class"] = float(np.bincount(labels).max() / len(labels))
        write_json(RESULTS / "prepare/metrics.json", metrics)
        sheet = contact_sheet(folder, params)
        stage.run.log_group("data", metrics)
        stage.run.log_artifact(save_picture(sheet, RESULTS / "prepare/contact_sheet.png"))
        stage.run.log_dataset(params.data.source, tree_hash(folder), str(IMAGES.absolute()))
        # Last: if the stage failed afterwards, DVC would delete the published outputs.
        publish_folder(folder, IMAGES)
    total = sum(sum(counts.values()) for counts in manifest["counts"].values())
    return f"prepare: {total} images of {len(source.class_names)} classes in {IMAGES}"


def _require_enough(images: int, params: Params) -> None:
    """Raise a `UserError` if there are fewer training images than the metrics need."""
    needed, user = params.least_images(covariance=not params.evaluation.reference_statistics)
    if images < needed:
        reason = f"{images} training images are too few: {user} needs {needed}"
        way_out = "add images, lower data.val_fraction, or change that metric's params"
        raise UserError("data.source", reason, way_out)


def contact_sheet(images: Path, params: Params) -> Image:
    """Draw the centre crops of ten training images of each of the first ten classes."""
    view = View(ImageShards(images, "train"), params.data, params.seed)
    labels = view.images.labels
    chosen = [i for c in range(min(10, labels.max() + 1)) for i in (labels == c).nonzero()[0][:10]]
    return grid_picture(view.centers(chosen), columns=10)
