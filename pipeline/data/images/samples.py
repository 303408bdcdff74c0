"""The samples of a main replicate, stored in shards like the data set. `evaluate` draws and
publishes them; other stages read them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.images.pixels import encode_png, from_chw
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
from pipeline.data.images.threads import in_threads
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
    """Draw samples, and write them as shards, one shard after the other. The worker that draws a
    batch encodes it. A killed run goes on after the batches and shards that it has made.

    Args:
        batches: the arguments of each batch, in order, for the maker: images (B, C, H, W) uint8.
        labels: (M,).
        batch_size: samples in a batch, but for the last one.
        shard_size: samples in a shard.
        name: names the set in messages.

    Raises:
        UserError: a file cannot be written, or the maker raises it.
    """
    remove_temporary(folder)
    parts = parts_folder(folder)
    encoder, shards = Maker(Encoder, maker), []

    def items(start: int, count: int) -> list[Item]:
        return [Item(f"{n:08d}", labels[n]) for n in range(start, start + count)]

    def save_batch(encoded: list[bytes], path: Path) -> None:
        write_shard(path, items(int(path.stem) * batch_size, len(encoded)), encoded)

    for path, start, stop in plan_shards(len(labels), SPLIT, shard_size, folder):
        if not path.exists():
            first, last = start // batch_size, (stop - 1) // batch_size
            files = {parts / f"{n:06d}.arrow": batches[n] for n in range(first, last + 1)}
            list(making(files, workers, encoder, name, save_batch))
            tables = [load_part(file, open_shard) for file in files]
            drawn = [image for table in tables for image in table["image"].to_pylist()]
            own = slice(start - first * batch_size, stop - first * batch_size)
            write_shard(path, items(start, stop - start), drawn[own])
            for file in list(files)[: None if stop % batch_size == 0 else -1]:
                file.unlink()  # the next shard has samples of the last batch too
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
