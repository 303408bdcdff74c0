"""The data set as Parquet shards, with a manifest and a contact sheet."""

from pathlib import Path

from pipeline.data.shards import ImageShards, View, stratified_split, write_manifest, write_shards
from pipeline.data.sources import open_source
from pipeline.layout import IMAGES, RESULTS
from pipeline.params import Params
from pipeline.pictures import grid_picture, save_picture
from pipeline.runtime.files import publish_folder, tree_hash, value_hash, write_json
from pipeline.runtime.runs import run_dir, stage_key
from pipeline.runtime.stage import run_stage
from pipeline.runtime.tracking import stage_run


def main(params: Params) -> str:
    key = stage_key("prepare")
    with stage_run("prepare", params, value_hash(key)) as run:
        source = open_source(params.data.source, params.data.download_dir)
        splits = stratified_split(source, params.data.val_fraction, params.seed)
        # A folder of images may change under the same params: shards of a killed run are taken up
        # only where the same items are listed in the same order, and none was written since.
        listing = {"items": value_hash([source.items, source.version])}
        folder = run_dir("prepare", key | listing, params.ray.storage_path) / "shards"
        shards = {
            split: write_shards(source, indices, split, params.data.shard_size, folder)
            for split, indices in splits.items()
        }
        manifest = write_manifest(folder, source, params.data.source, shards)
        metrics = {f"{split}_images": len(indices) for split, indices in splits.items()}
        metrics |= {"classes": len(source.class_names)}
        write_json(RESULTS / "prepare/metrics.json", metrics)
        sheet = contact_sheet(folder, params)
        run.log_metrics(metrics)
        run.log_artifact(save_picture(sheet, RESULTS / "prepare/contact_sheet.png"))
        run.log_dataset(params.data.source, tree_hash(folder), str(IMAGES.absolute()))
        # Last: DVC deletes what is published where the stage fails after all.
        publish_folder(folder, IMAGES)
    total = sum(sum(counts.values()) for counts in manifest["counts"].values())
    return f"prepare: {total} images of {len(source.class_names)} classes in {IMAGES}"


def contact_sheet(images: Path, params: Params):
    """Ten training images of each of the first ten classes, as training sees them uncropped."""
    view = View(ImageShards(images, "train"), params.data, params.seed)
    labels = view.images.labels
    chosen = [i for c in range(min(10, labels.max() + 1)) for i in (labels == c).nonzero()[0][:10]]
    return grid_picture(view.centers(chosen), columns=10)


if __name__ == "__main__":
    run_stage(main)
