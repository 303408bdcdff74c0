"""The size of the data set that a run is planned for."""

from dataclasses import dataclass

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES
from pipeline.data.images.shards import read_manifest
from pipeline.runtime import limits
from pipeline.runtime.errors import UserError
from pipeline.tools.plan.networks import DataSize


@dataclass(frozen=True)
class Known:
    """The published size of a data set."""

    images: int  # for training; all of them, where no split is published
    val: int | None
    classes: int
    pixels: int | None = None  # of a picture, on average


KNOWN = {
    "mnist5k": Known(5_000, None, 10, 28 * 28),
    "torchvision:CIFAR10": Known(50_000, 10_000, 10, 32 * 32),
    "folder:data/raw/imagenet": Known(1_281_167, 50_000, 1000, 469 * 387),
    "folder:data/raw/places2": Known(1_803_460, 36_500, 365),
}


def data_size(params: Params, images: int | None = None, classes: int | None = None) -> DataSize:
    """The size of `data.source`: as given, else from the manifest of the prepared images, else
    published.

    Args:
        images: number of images in all; `data.val_fraction` of them are held out.
        classes: number of classes.

    Raises:
        UserError: nothing tells, or what is given is no size.
    """
    for option, value in (("--images", images), ("--classes", classes)):
        if value is not None and not 1 <= value <= limits.IMAGES:
            raise UserError(f"plan: {option} {value} is no size; give 1 to {limits.IMAGES:,}")
    source, manifest_file, size = params.data.source, IMAGES / "manifest.json", None
    manifest = read_manifest(IMAGES) if manifest_file.exists() else {}
    known: Known | None
    if manifest.get("source") == source and manifest.get("counts", {}).keys() >= {"train", "val"}:
        counts = {split: sum(of.values()) for split, of in manifest["counts"].items()}
        known = Known(counts["train"], counts["val"], len(manifest["class_names"]))
        origin = str(manifest_file)
        size = sum(shard.stat().st_size for shard in IMAGES.glob("*.arrow"))
    else:
        known, origin = KNOWN.get(source), "published size"
    if images is not None:
        classes = classes or (known.classes if known else None)
        known = Known(images, None, classes) if classes else None
        origin, size = "as given", None
    if not known:
        raise UserError(
            f"plan: the size of {source} is unknown before `dvc repro prepare`; give --images and "
            f"--classes"
        )
    val = known.val
    if val is None:
        val = round(params.data.val_fraction * known.images)
    train = known.images if known.val is not None else known.images - val
    if classes not in (None, known.classes) and images is None:
        origin += ", classes as given"
    classes = classes or known.classes
    if train < classes:
        raise UserError(
            f"plan: {train} training images are too few for {classes} classes, of which each needs "
            f"one; give a larger --images"
        )
    pixels = KNOWN[source].pixels if source in KNOWN else None
    return DataSize(train, val, classes, origin, size, pixels)
