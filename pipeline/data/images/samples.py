"""The samples of a main replicate, stored in shards like the data set. `evaluate` draws and
publishes them; other stages read them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.images.pixels import encode_png, from_chw, in_threads
from pipeline.data.images.shards import (
    MANIFEST,
    ImageShards,
    Item,
    open_shard,
    plan_shards,
    shard_entry,
    write_manifest,
    write_shard,
)
from pipeline.runtime.batches import (
    BatchWorkers,
    Maker,
    drop_parts,
    load_part,
    making,
    parts_folder,
)
from pipeline.runtime.files import atomic_folder, link_or_copy, remove_temporary

SPLIT = "samples"
LEVEL = 1  # of zlib's effort: a third of the default's time, for a tenth more bytes
WAY_OUT = "run `dvc repro evaluate` to make it again (if that runs nothing, delete it first)"


def draw_samples(
    batches: Sequence[tuple],
    labels: Sequence[int],
    class_names: list[str],
    *,
    workers: BatchWorkers,
    maker: Maker,
    batch_size: int,
    shard_size: int,
    folder: Path,
    name: str,
) -> None:
    """Draw samples, and write them as shards. The worker that draws a batch encodes it. A killed
    run resumes after the batches that it has drawn.

    Args:
        batches: the arguments of each batch, in order, for the maker of images (B, C, H, W) uint8.
        labels: (M,).
        batch_size: samples in each batch but the last.
        shard_size: samples in a shard.
        name: names the set in messages.

    Raises:
        UserError: a file cannot be written, or the maker raises it.
    """
    remove_temporary(folder)
    parts = parts_folder(folder)
    files = {parts / f"{n:06d}.arrow": batch for n, batch in enumerate(batches)}
    items, shards = [Item(f"{n:08d}", label) for n, label in enumerate(labels)], []

    def save_batch(encoded: list[bytes], path: Path) -> None:
        start = int(path.stem) * batch_size
        write_shard(path, items[start : start + len(encoded)], encoded)

    list(making(files, workers, Maker(Encoder, maker), name, save_batch))
    tables = (load_part(file, open_shard) for file in files)
    drawn = (image.as_py() for table in tables for image in table["image"])
    for path, start, stop in plan_shards(len(labels), SPLIT, shard_size, folder):
        write_shard(path, items[start:stop], drawn)
        shards.append(shard_entry(path, stop - start))
    write_manifest(folder, class_names, SPLIT, {SPLIT: shards})
    drop_parts(folder)


class Encoder:
    """Draws images and encodes them as PNGs.

    Args:
        maker: of images (B, C, H, W) uint8.
    """

    def __init__(self, maker: Maker, device: torch.device):
        self.make = maker.open(device)

    def __call__(self, *arguments: object) -> list[bytes]:
        images: Tensor = self.make(*arguments)
        return in_threads(lambda image: encode_png(from_chw(image), LEVEL), images.numpy())


def are_written(folder: Path) -> bool:
    """Whether an earlier run has drawn all samples: the manifest is written last."""
    return (folder / MANIFEST).exists()


def publish_samples(samples: Path, folder: Path, copy: bool = True) -> None:
    """Publish a folder of samples atomically.

    Args:
        copy: if false, the files are linked where the file system has links, which takes no room
            before `samples` is deleted.

    Raises:
        UserError: the folder cannot be written.
    """
    with atomic_folder(folder) as temporary:
        for path in samples.iterdir():
            (shutil.copyfile if copy else link_or_copy)(path, temporary / path.name)


def open_samples(folder: Path) -> ImageShards:
    """Open published samples.

    Raises:
        UserError: they are missing, or cannot be read.
    """
    return ImageShards(folder, SPLIT, WAY_OUT)
