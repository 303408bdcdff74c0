"""Shards of encoded images, for the data set and for samples, and the images as networks see them.

Shards are memory-mapped Arrow IPC files, so that all processes share the system's page cache.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
from PIL.Image import Image
from torch import Tensor

from pipeline.data.images.pixels import (
    center_crop,
    decode_image,
    in_threads,
    random_resized_crop,
    to_chw,
)
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import atomic_file, file_hash, read_json, remove_temporary, write_json
from pipeline.runtime.progress import PAUSE, progress

SCHEMA = pa.schema([("key", pa.string()), ("label", pa.int32()), ("image", pa.binary())])
GROUP = 64  # images in a record batch
WINDOW = 256  # record batches that are shuffled together: 16,384 images, which memory may cache
MANIFEST = "manifest.json"
WAY_OUT = "run `dvc repro prepare` to make it again (if that runs nothing, delete it first)"
# The section `data` of the params, or another object with image_size, channels, crop_scale,
# crop_ratio and flip.
ImageParams = Any


class Item(NamedTuple):
    """An image of a data set."""

    key: str  # unique and stable: the seeds of the image's crops derive from it
    label: int
    split: str | None = None  # "train", "val", or None if the source has no split of its own


class Source(Protocol):
    """A data set from which shards are written."""

    class_names: list[str]
    items: list[Item]

    @property
    def version(self) -> str:
        """A version, to be changed when the images of the same items may have changed."""

    def read(self, index: int) -> bytes:
        """What is stored of `items[index]`: a PNG, JPEG or PPM. Several threads call it at once."""


def write_shards(
    source: Source, indices: Sequence[int], split: str, shard_size: int, folder: Path
) -> list[dict]:
    """Write one split as `<split>-00000.arrow` …; existing shards are not written again.

    Args:
        indices: of the split's items, in order.
        shard_size: images in a shard.

    Returns:
        {file, count, hash} of each shard.
    """
    shards = []
    remove_temporary(folder)
    with progress(f"shards: {split} images", 0, len(indices), pause=PAUSE) as bar:

        def read(start: int, stop: int) -> Iterator[bytes]:
            for first in range(start, stop, GROUP):
                last = min(first + GROUP, stop)
                images = in_threads(source.read, indices[first:last])
                bar(last)
                yield from images

        for path, start, stop in plan_shards(len(indices), split, shard_size, folder):
            if not path.exists():
                items = [source.items[i] for i in indices[start:stop]]
                write_shard(path, items, read(start, stop))
            shards.append(shard_entry(path, stop - start))
    return shards


def plan_shards(
    count: int, split: str, shard_size: int, folder: Path
) -> Iterator[tuple[Path, int, int]]:
    """The file of each shard of `count` images, and the numbers of its images."""
    for number, start in enumerate(range(0, count, shard_size)):
        yield folder / f"{split}-{number:05d}.arrow", start, min(start + shard_size, count)


def write_shard(path: Path, items: Sequence[Item], images: Iterable[bytes]) -> None:
    """Write a shard of encoded images, `GROUP` of them at a time."""
    rest = iter(images)
    with (
        atomic_file(path) as temporary,
        pa.OSFile(str(temporary), "wb") as out,
        pa.ipc.new_file(out, SCHEMA) as file,
    ):
        for start in range(0, len(items), GROUP):
            group = items[start : start + GROUP]
            columns = {
                "key": [item.key for item in group],
                "label": [item.label for item in group],
                "image": list(islice(rest, len(group))),
            }
            file.write_table(pa.table(columns, schema=SCHEMA))


def shard_entry(path: Path, count: int) -> dict:
    """The manifest's entry for a shard."""
    return {"file": path.name, "count": count, "hash": file_hash(path)}


def write_manifest(
    folder: Path, class_names: list[str], name: str, shards: dict[str, list[dict]]
) -> dict:
    """Write the labels of each split, and the manifest: classes, counts per class, and the shards.
    Returns the manifest."""
    counts = {}
    for split, entries in shards.items():
        files = [folder / entry["file"] for entry in entries]
        labels = np.concatenate([open_shard(file)["label"].to_numpy() for file in files])
        with atomic_file(folder / f"{split}-labels.npy") as path, open(path, "wb") as temporary:
            np.save(temporary, labels)
        counts[split] = dict.fromkeys(class_names, 0)
        numbers = np.bincount(labels, minlength=len(class_names)).tolist()
        for class_name, number in zip(class_names, numbers, strict=True):
            counts[split][class_name] += number  # two classes of ImageNet have one name
    manifest = {"source": name, "class_names": class_names, "counts": counts, "shards": shards}
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Path, way_out: str = WAY_OUT) -> dict[str, Any]:
    """Read the manifest of shards. `way_out` ends the error message if it cannot be read."""
    return read_json(folder / MANIFEST, "class_names", "shards", way_out=way_out)


def open_shard(path: Path) -> pa.Table:
    """Open a shard as a memory-mapped table of key, label and image."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


class ImageShards:
    """Random access to the images of one split. A shard is mapped when it is first read.

    Args:
        way_out: ends the message if a file cannot be read.

    Attributes:
        labels: (n,) int64.
        group_start: where each record batch begins, and the last one ends.

    Raises:
        UserError: a file is missing, or cannot be read.
    """

    def __init__(self, folder: Path | str, split: str, way_out: str = WAY_OUT):
        folder = Path(folder).absolute()
        self._opened_by, self._way_out = (folder, split, way_out), way_out
        manifest = read_manifest(folder, way_out)
        self.class_names: list[str] = manifest["class_names"]
        shards = manifest["shards"][split]
        self._files = [folder / shard["file"] for shard in shards]
        counts = [shard["count"] for shard in shards]
        self._start = np.cumsum([0, *counts]).tolist()
        groups = [min(GROUP, count - at) for count in counts for at in range(0, count, GROUP)]
        self.group_start = np.cumsum([0, *groups])
        labels = self._readable(np.load, folder / f"{split}-labels.npy")
        self.labels = labels.astype(np.int64)
        self._tables: dict[int, pa.Table] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageShards, self._opened_by  # another process maps the files itself

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> tuple[str, bytes]:
        """Read (key, encoded image) of one image."""
        shard = bisect_right(self._start, index) - 1
        if (table := self._tables.get(shard)) is None:
            table = self._tables[shard] = self._readable(open_shard, self._files[shard])
        row = index - self._start[shard]
        return table["key"][row].as_py(), table["image"][row].as_py()

    def _readable(self, read: Callable[[Path], Any], path: Path) -> Any:
        try:
            return read(path)
        except Exception as error:  # a damaged file makes its reader raise nearly anything
            require_readable(path, error)
            raise UserError(str(path), "missing or damaged", self._way_out) from error


class View:
    """The images of a split as (C, size, size) uint8: centre crops, or seeded random crops.

    Args:
        seed: of the random crops.
    """

    def __init__(self, images: ImageShards, data: ImageParams, seed: int = 0):
        self.images, self.data, self.seed = images, data, seed

    def centers(self, indices: Iterable[int]) -> Tensor:
        """Centre crops (len(indices), C, size, size) uint8."""
        return self._cropped(indices, lambda image, key: center_crop(image, self.data.image_size))

    def crops(self, indices: Iterable[int], draw: int) -> Tensor:
        """Random crops (len(indices), C, size, size) uint8: the `draw`-th crop of each image, a
        pure function of (seed, the image's key, draw)."""
        data = self.data

        def crop(image: Image, key: str) -> Image:
            seed = (self.seed, key, draw)
            return random_resized_crop(
                image, data.image_size, data.crop_scale, data.crop_ratio, data.flip, seed
            )

        return self._cropped(indices, crop)

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """Centre crops (M, C, size, size) uint8 and labels (M,) of the first `count` images, or of
        all if there are fewer."""
        return self.chosen(range(min(count, len(self.images))))

    def chosen(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Centre crops and labels of the images with these indices."""
        return self.centers(indices), torch.from_numpy(self.images.labels[list(indices)])

    def batches(self, size: int) -> Iterator[Tensor]:
        """Centre crops of the whole split in order, (B, C, size, size) uint8, B at most `size`."""
        for start in range(0, len(self.images), size):
            yield self.centers(range(start, min(start + size, len(self.images))))

    def _cropped(self, indices: Iterable[int], crop: Callable[[Image, str], Image]) -> Tensor:
        def read(index: int) -> np.ndarray:
            key, content = self.images.read(index)
            return to_chw(crop(decode_image(content, self.data.channels), key))

        return torch.from_numpy(np.stack(in_threads(read, map(int, indices))))
