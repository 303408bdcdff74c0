"""Writes and reads shards of encoded images, for the data set and for samples. Shards are
memory-mapped Arrow IPC files, so all processes share the system's page cache."""

from collections import Counter
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
    ImageParams,
    center_crop,
    decode_image,
    in_threads,
    random_resized_crop,
    to_chw,
)
from pipeline.runtime.batches import load_part
from pipeline.runtime.files import atomic_file, file_hash, read_json, remove_temporary, write_json
from pipeline.runtime.progress import PAUSE, progress

SCHEMA = pa.schema([("key", pa.string()), ("label", pa.int32()), ("image", pa.binary())])
GROUP = 64  # images per record batch
WINDOW = 256  # record batches shuffled together: 16,384 images, few enough to stay in memory
MANIFEST = "manifest.json"
SAMPLES = "samples"  # the only split of samples, which the stage `evaluate` publishes


class Item(NamedTuple):
    """The key, label and split of an image in a data set."""

    key: str  # unique and stable: the seeds of the image's crops are derived from the key
    label: int
    split: str | None = None  # "train", "val", or None if the source defines no split


class Source(Protocol):
    """A data set from which shards are written."""

    class_names: list[str]
    items: list[Item]
    version: str  # changes if the items' images may have changed

    def read(self, index: int) -> bytes:
        """The encoded image of `items[index]`: PNG, JPEG or PPM. This method is thread-safe."""


def write_shards(
    source: Source, indices: Sequence[int], split: str, shard_size: int, folder: Path
) -> list[dict]:
    """Write the images at the given indices of a data set to shards `<split>-<number>.arrow` of
    `shard_size` images. Existing shards are kept. Returns {file, count, hash} for each shard."""
    shards = []
    remove_temporary(folder)
    with progress(f"shards: {split} images", 0, len(indices), pause=PAUSE) as bar:

        def images(chosen: Sequence[int], done: int) -> Iterator[bytes]:
            for first in range(0, len(chosen), GROUP):
                yield from in_threads(source.read, chosen[first : first + GROUP])
                bar(min(done + first + GROUP, len(indices)))

        for number, start in enumerate(range(0, len(indices), shard_size)):
            path = folder / f"{split}-{number:05d}.arrow"
            chosen = indices[start : start + shard_size]
            if not path.exists():
                write_shard(path, [source.items[i] for i in chosen], images(chosen, start))
            shards.append({"file": path.name, "count": len(chosen), "hash": file_hash(path)})
    return shards


def write_shard(path: Path, items: Sequence[Item], images: Iterable[bytes]) -> None:
    """Write one shard: encoded images with their keys and labels, in Arrow record batches of
    `GROUP` images."""
    rest = iter(images)
    with atomic_file(path) as temporary, pa.ipc.new_file(str(temporary), SCHEMA) as file:
        for start in range(0, len(items), GROUP):
            group = items[start : start + GROUP]
            columns = {
                "key": [item.key for item in group],
                "label": [item.label for item in group],
                "image": list(islice(rest, len(group))),
            }
            file.write_table(pa.table(columns, schema=SCHEMA))


def write_manifest(
    folder: Path, class_names: list[str], name: str, shards: dict[str, list[dict]]
) -> dict:
    """Write the labels of each split, and `manifest.json` with the class names, the image count of
    each class, the shards, and `name` as the "source" of the images. Returns the manifest."""
    counts = {}
    for split, entries in shards.items():
        files = [folder / entry["file"] for entry in entries]
        labels = np.concatenate([open_shard(file)["label"].to_numpy() for file in files])
        with atomic_file(folder / f"{split}-labels.npy") as path, open(path, "wb") as temporary:
            np.save(temporary, labels)
        # ImageNet has two classes of the same name, whose counts are added here.
        counts[split] = dict.fromkeys(class_names, 0) | Counter(class_names[i] for i in labels)
    manifest = {"source": name, "class_names": class_names, "counts": counts, "shards": shards}
    write_json(folder / MANIFEST, manifest)
    return manifest


def open_shard(path: Path) -> pa.Table:
    """Open a shard as a memory-mapped table with the columns key, label and image."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


class ImageShards:
    """Random access to the images of one split. Raises a `UserError` if a file is missing or cannot
    be read.

    Attributes:
        labels: labels (n,) int64 of the images.
        group_start: index of each record batch's first image; the last entry is n.
    """

    def __init__(self, folder: Path | str, split: str):
        folder = Path(folder).absolute()
        self._opened_by = folder, split
        stage = "evaluate" if split == SAMPLES else "prepare"
        way_out = f"run `dvc repro {stage}` (if DVC runs nothing, delete the file first)"
        manifest = read_json(folder / MANIFEST, "class_names", "shards", way_out=way_out)
        self.class_names: list[str] = manifest["class_names"]
        labels = load_part(folder / f"{split}-labels.npy", np.load, way_out)
        self.labels = labels.astype(np.int64)
        files = [folder / shard["file"] for shard in manifest["shards"][split]]
        table = pa.concat_tables([load_part(file, open_shard, way_out) for file in files])
        self._keys, self._images = table["key"], table["image"]
        self.group_start = np.cumsum([0, *(len(group) for group in self._images.chunks)])

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageShards, self._opened_by  # unpickling maps the files in the other process

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> tuple[str, bytes]:
        """Read the key and the encoded bytes of one image."""
        return self._keys[index].as_py(), self._images[index].as_py()


class View:
    """Crops of a split's images, of shape (C, size, size): at the centre, or at random places that
    depend on the seed."""

    def __init__(
        self, images: ImageShards, data: ImageParams, seed: int = 0, count: int | None = None
    ):
        self.images, self.data, self.seed, self.count = images, data, seed, count
        self.shape = (data.channels, data.image_size, data.image_size)

    @property
    def labels(self) -> Tensor:
        """Labels (n,) int64 of the first `count` images, or of all images."""
        return torch.from_numpy(self.images.labels[: self.count])

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, start: int, stop: int) -> Tensor:
        """Centre crops (B, C, size, size) uint8 of the images in range(start, stop)."""
        # Contiguous: a convolution of colour images may round differently for other strides.
        return self.centers(range(start, stop)).contiguous()

    def centers(self, indices: Iterable[int]) -> Tensor:
        """Centre crops (len(indices), C, size, size) uint8 of the images at `indices`."""
        return self._cropped(indices, lambda image, key: center_crop(image, self.data.image_size))

    def crops(self, indices: Iterable[int], draw: int) -> Tensor:
        """Random crops (len(indices), C, size, size) uint8, one of each image at `indices`. Each
        crop is a pure function of (seed, the image's key, draw)."""
        return self._cropped(
            indices,
            lambda image, key: random_resized_crop(image, self.data, (self.seed, key, draw)),
        )

    def _cropped(self, indices: Iterable[int], crop: Callable[[Image, str], Image]) -> Tensor:
        def read(index: int) -> np.ndarray:
            key, content = self.images.read(index)
            return to_chw(crop(decode_image(content, self.data.channels), key))

        return torch.from_numpy(np.stack(in_threads(read, map(int, indices))))
