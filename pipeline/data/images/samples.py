"""The samples of a main replicate: shards as the data set's, of PNGs. `evaluate` writes and
publishes them, and other stages read them as they read the data set."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipeline.data.images.pixels import encode_png, from_chw
from pipeline.data.images.shards import (
    MANIFEST,
    ImageShards,
    plan_shards,
    shard_entry,
    write_manifest,
    write_shard,
)
from pipeline.data.images.threads import in_threads
from pipeline.runtime.batches import Alone, Maker, drop_parts, load_part, making, parts_folder
from pipeline.runtime.files import (
    atomic_file,
    atomic_folder,
    link_or_copy,
    read_json,
    remove_temporary,
)

SPLIT = "samples"
LEVEL = 1  # of zlib's effort: a third of the default's time, for a tenth more bytes
WAY_OUT = "run `dvc repro evaluate` to make it again (if that runs nothing, delete it first)"


class _Sample(NamedTuple):
    key: str
    label: int


class _Samples:
    """A set of samples on its way: which of its shards are missing, and the batches that they are
    drawn in."""

    def __init__(self, labels: Sequence[int], batch_size: int, shard_size: int, folder: Path):
        self.labels, self.folder = labels, folder
        self.batches = range(0, len(labels), batch_size)  # where each begins
        self.shards = list(plan_shards(len(labels), SPLIT, shard_size, folder))
        self.missing = [shard for shard in self.shards if not shard[0].exists()]

    def part(self, batch: int) -> Path:
        """The file of a batch, until its shards are there."""
        return parts_folder(self.folder) / f"{batch:06d}.parquet"

    def batches_of(self, shard: tuple[Path, int, int]) -> range:
        """Those that have a sample of the shard."""
        _, start, stop = shard
        return range(start // self.batches.step, (stop - 1) // self.batches.step + 1)

    @property
    def needed(self) -> set[int]:
        """Batches that have a sample of a missing shard."""
        return {batch for shard in self.missing for batch in self.batches_of(shard)}

    def write(self, shard: tuple[Path, int, int]) -> None:
        """Write a shard, of which all batches are there, and delete those that no other needs."""
        path, start, stop = shard
        batches = self.batches_of(shard)
        before = start - self.batches[batches[0]]  # samples of its first batch, of other shards
        drawn = [image for batch in batches for image in _read_batch(self.part(batch))]
        items = [_Sample(f"{number:08d}", self.labels[number]) for number in range(start, stop)]
        write_shard(path, items, drawn[before : before + len(items)])
        self.missing.remove(shard)
        for batch in set(batches) - self.needed:
            self.part(batch).unlink()


def draw_samples(
    batches: Sequence[tuple],
    labels: Sequence[int],
    class_names: list[str],
    *,
    workers: Alone,
    maker: Maker,
    batch_size: int,
    shard_size: int,
    folder: Path,
    name: str,
) -> None:
    """Draw samples, and write them as shards. Whoever draws a batch encodes it, and shards are put
    together of them while others are drawn: neither all samples nor their pixels lie anywhere at
    once. What a killed run has made is kept.

    Args:
        batches: the arguments of each batch, in order, for the maker: images (B, C, H, W) uint8.
        labels: (M,).
        batch_size: samples in a batch, but for the last one.
        shard_size: samples in a shard.
        name: names the set in messages.

    Raises:
        UserError: a file cannot be written, or the maker's.
    """
    remove_temporary(folder)
    samples = _Samples(labels, batch_size, shard_size, folder)
    waiting = samples.needed
    parts = {samples.part(batch): batches[batch] for batch in sorted(waiting)}
    for part in making(parts, workers, Maker(Encoded, maker), name, save_batch):
        waiting.remove(batch := int(part.stem))
        for shard in [s for s in samples.missing if batch in samples.batches_of(s)]:
            if waiting.isdisjoint(samples.batches_of(shard)):
                samples.write(shard)
    shards = [shard_entry(path, stop - start) for path, start, stop in samples.shards]
    write_manifest(folder, class_names, SPLIT, {SPLIT: shards})
    drop_parts(folder)


class Encoded:
    """Makes images, and gives them as PNGs.

    Args:
        maker: of images (B, C, H, W) uint8.
    """

    def __init__(self, maker: Maker, device: torch.device):
        self.make = maker.open(device)

    def __call__(self, *arguments: object) -> list[bytes]:
        images: Tensor = self.make(*arguments)
        return in_threads(lambda image: encode_png(from_chw(image), LEVEL), images.numpy())


def save_batch(encoded: list[bytes], path: Path) -> None:
    """Write a batch of PNGs."""
    with atomic_file(path) as temporary:
        pq.write_table(pa.table({"image": encoded}), temporary, compression="none")


def _read_batch(path: Path) -> list[bytes]:
    table = load_part(path, partial(pq.read_table, partitioning=None))
    return table.column("image").to_pylist()


def are_written(folder: Path) -> bool:
    """Whether all samples of an earlier, killed run are there: the manifest is written last."""
    return (folder / MANIFEST).exists()


def publish_samples(samples: Path, folder: Path, copy: bool = True) -> None:
    """Publish a folder of samples: it appears whole or not at all.

    Args:
        copy: else its files are the same by another name, if the file system has such links: they
            take no room before the first name is deleted.

    Raises:
        UserError: the folder cannot be written.
    """
    shards = read_json(samples / MANIFEST)["shards"][SPLIT]
    with atomic_folder(folder) as temporary:
        for name in (*(shard["file"] for shard in shards), MANIFEST):
            (shutil.copyfile if copy else link_or_copy)(samples / name, temporary / name)


def open_samples(folder: Path) -> ImageShards:
    """Published samples.

    Raises:
        UserError: they are missing, or cannot be read.
    """
    return ImageShards(folder, SPLIT, WAY_OUT)
