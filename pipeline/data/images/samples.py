"""The samples of a main replicate: shards as the data set's, of PNGs. `evaluate` writes and
publishes them, and other stages read them as they read the data set."""

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from pipeline.data.images.png import encode_png, from_chw
from pipeline.data.images.shards import MANIFEST, ImageShards
from pipeline.data.images.writing import write_manifest, write_shards
from pipeline.runtime.checksums import keep_if_whole, note_hash, require_hash
from pipeline.runtime.files import SUMS, atomic_folder, read_json

SPLIT = "samples"
LEVEL = 1  # of zlib's effort: a third of the default's time, for a tenth more bytes
WAY_OUT = "run `dvc repro evaluate` to make it again (if that runs nothing, delete it first)"


class _Sample(NamedTuple):
    key: str
    label: int


class Images(Protocol):
    """Images (M, C, H, W) uint8, as an array's are read; several threads do so at once."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


class _Samples:
    """What shards are written of."""

    def __init__(self, images: Images, labels: Sequence[int], class_names: list[str]):
        self.images, self.class_names = images, class_names
        self.items = [_Sample(f"{number:08d}", label) for number, label in enumerate(labels)]

    def read(self, index: int) -> bytes:
        return encode_png(from_chw(self.images[index]), LEVEL)


def write_samples(
    images: Images,
    labels: Sequence[int],
    class_names: list[str],
    shard_size: int,
    folder: Path,
) -> None:
    """Write samples as shards, the encoded ones of one shard in memory at a time. Those that a
    killed run has written are kept.

    Args:
        labels: (M,).
        shard_size: images in a shard.

    Raises:
        UserError: a file cannot be written.
    """
    source = _Samples(images, labels, class_names)
    shards = write_shards(source, range(len(images)), SPLIT, shard_size, folder)
    write_manifest(folder, source, SPLIT, {SPLIT: shards})
    note_hash(folder / MANIFEST)


def keep_if_all_written(folder: Path) -> bool:
    """Whether samples of an earlier, killed run are there and whole. Damaged files are removed, so
    that they are made again, and a line says so."""
    manifest = folder / MANIFEST
    if not keep_if_whole(manifest):
        return False
    files = [folder / shard["file"] for shard in read_json(manifest)["shards"][SPLIT]]
    whole = [keep_if_whole(file) for file in files]
    if not all(whole):
        manifest.unlink()
    return all(whole)


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
        for name in (*(shard["file"] for shard in shards), MANIFEST, SUMS):
            _publish(samples / name, temporary / name, copy)


def _publish(file: Path, target: Path, copy: bool) -> None:
    if not copy:
        with contextlib.suppress(OSError):  # on another file system, or one without links
            os.link(file, target)
            return
    shutil.copyfile(file, target)


def open_samples(folder: Path) -> ImageShards:
    """Published samples. A shard is compared with its hash when its first image is read.

    Raises:
        UserError: they are missing, or not those that were published.
    """
    require_hash(folder / MANIFEST, WAY_OUT)
    return ImageShards(folder, SPLIT, WAY_OUT)
