"""Parquet shards of encoded images: writing them (resumable) and reading batches from them."""

import io
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from pipeline.data.crops import center_crop, random_resized_crop
from pipeline.data.order import BatchOrder
from pipeline.data.sources import Source
from pipeline.data.threads import in_threads
from pipeline.errors import UserError
from pipeline.params import Data
from pipeline.runtime.files import atomic_file, file_hash, read_json, write_json
from pipeline.runtime.progress import PAUSE, progress

SCHEMA = pa.schema([("key", pa.string()), ("label", pa.int32()), ("image", pa.binary())])
ROW_GROUP = 64  # images that are read at once
WINDOW = 256  # row groups shuffled together, and kept in memory: 16,384 images


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


def write_shards(
    source: Source, indices: list[int], split: str, shard_size: int, folder: Path
) -> list[dict]:
    """Write one split as `<split>-00000.parquet` …; a shard that is there already is kept.

    Returns:
        One {file, count, hash} a shard.
    """
    shards = []
    with progress(f"shards: {split} images", 0, len(indices), pause=PAUSE) as bar:
        for number, start in enumerate(range(0, len(indices), shard_size)):
            chosen = indices[start : start + shard_size]
            path = folder / f"{split}-{number:05d}.parquet"
            if not path.exists():
                columns = {
                    "key": [source.items[i].key for i in chosen],
                    "label": [source.items[i].label for i in chosen],
                    "image": in_threads(source.read, chosen),
                }
                with atomic_file(path) as temporary:
                    table = pa.table(columns, schema=SCHEMA)
                    pq.write_table(table, temporary, row_group_size=ROW_GROUP, compression="none")
            shards.append({"file": path.name, "count": len(chosen), "hash": file_hash(path)})
            bar(start + len(chosen))
    return shards


def write_manifest(folder: Path, source: Source, name: str, shards: dict[str, list[dict]]) -> dict:
    """Write and return the manifest: classes, counts per class, shards and their hashes."""
    counts = {}
    for split, split_shards in shards.items():
        labels = np.concatenate([_labels(folder / s["file"]) for s in split_shards])
        number = np.bincount(labels, minlength=len(source.class_names))
        counts[split] = dict(zip(source.class_names, number.tolist(), strict=True))
    manifest = {"source": name, "class_names": source.class_names, "counts": counts}
    manifest["shards"] = shards
    write_json(folder / "manifest.json", manifest)
    return manifest


def _labels(path: Path) -> np.ndarray:
    return pq.read_table(path, columns=["label"])["label"].to_numpy()


class ImageShards:
    """Random access to one split; recently used row groups stay in memory."""

    def __init__(self, folder: Path | str, split: str):
        self.folder = Path(folder)
        manifest = read_json(self.folder / "manifest.json")
        self.class_names: list[str] = manifest["class_names"]
        self._files, self._groups = [], []
        for number, shard in enumerate(manifest["shards"][split]):
            self._files.append(self.folder / shard["file"])
            for group, start in enumerate(range(0, shard["count"], ROW_GROUP)):
                self._groups.append((number, group, min(ROW_GROUP, shard["count"] - start)))
        sizes = np.array([size for *_, size in self._groups])
        self.group_start = np.concatenate([[0], np.cumsum(sizes)])
        self.labels = np.concatenate([_labels(path) for path in self._files]).astype(np.int64)
        self._cache: OrderedDict[int, tuple[list[str], list[bytes]]] = OrderedDict()

    def __len__(self) -> int:
        return int(self.group_start[-1])

    def read(self, index: int) -> tuple[str, bytes]:
        """(key, encoded image) of one image."""
        group = int(np.searchsorted(self.group_start, index, side="right")) - 1
        keys, images = self._read_group(group)
        row = index - int(self.group_start[group])
        return keys[row], images[row]

    def _read_group(self, group: int) -> tuple[list[str], list[bytes]]:
        if group not in self._cache:
            number, row_group, _ = self._groups[group]
            table = pq.ParquetFile(self._files[number]).read_row_group(row_group, ["key", "image"])
            self._cache[group] = (table["key"].to_pylist(), table["image"].to_pylist())
            if len(self._cache) > WINDOW:
                self._cache.popitem(last=False)
        self._cache.move_to_end(group)
        return self._cache[group]


def decode_image(content: bytes, channels: int) -> Image.Image:
    """Encoded bytes as a grey or RGB image of 8 bits."""
    image = Image.open(io.BytesIO(content))
    if image.mode.startswith("I;16"):  # `convert` would clip and not scale
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    return image.convert("L" if channels == 1 else "RGB")


def to_chw(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


class View:
    """Loads images of a split as (C, size, size) uint8: the centre, or a seeded random crop."""

    def __init__(self, images: ImageShards, data: Data, seed: int):
        self.images, self.data, self.seed = images, data, seed

    def centers(self, indices: Iterable[int]) -> Tensor:
        """(len(indices), C, size, size) uint8."""
        return self._stacked(self._center, indices)

    def crops(self, indices: Iterable[int], draw: int) -> Tensor:
        """(len(indices), C, size, size) uint8, the `draw`-th random crop of each: a pure function
        of (seed, the image's key, draw)."""
        return self._stacked(partial(self._crop, draw), indices)

    def _stacked(
        self, decode: Callable[[tuple[str, bytes]], np.ndarray], indices: Iterable[int]
    ) -> Tensor:
        # Read in order, by one thread, so that each row group is read once.
        encoded = [self.images.read(int(index)) for index in indices]
        return torch.from_numpy(np.stack(in_threads(decode, encoded)))

    def _center(self, encoded: tuple[str, bytes]) -> np.ndarray:
        image = decode_image(encoded[1], self.data.channels)
        return to_chw(center_crop(image, self.data.image_size))

    def _crop(self, draw: int, encoded: tuple[str, bytes]) -> np.ndarray:
        key, content = encoded
        image, data = decode_image(content, self.data.channels), self.data
        seed = (self.seed, key, draw)
        cropped = random_resized_crop(
            image, data.image_size, data.crop_scale, data.crop_ratio, data.flip, seed
        )
        return to_chw(cropped)

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """Centre crops (M, C, size, size) uint8 and labels (M,) of the first `count` images, or of
        all where there are fewer."""
        chosen = range(min(count, len(self.images)))
        return self.centers(chosen), torch.from_numpy(self.images.labels[: len(chosen)])

    def batches(self, size: int) -> Iterator[Tensor]:
        """Centre crops of the whole split in order, (B, C, size, size) uint8, B at most `size`."""
        for start in range(0, len(self.images), size):
            yield self.centers(range(start, min(start + size, len(self.images))))


class Prefetched:
    """What `load` makes of a step, made in a thread while the one before is used.

    Args:
        load: a pure function of the step; random draws must be from generators of its own.
    """

    def __init__(self, load: Callable[[int], Any]):
        self._load = load
        self._pool = ThreadPoolExecutor(1)
        self._ahead: dict[int, Future] = {}

    def __call__(self, step: int) -> Any:
        future = self._ahead.pop(step, None) or self._pool.submit(self._load, step)
        self._ahead = {step + 1: self._pool.submit(self._load, step + 1)}
        return future.result()


class ImageBatches:
    """Randomly cropped training batches; batch k is a pure function of (seed, k)."""

    def __init__(self, images: ImageShards, data: Data, batch_size: int, seed: int):
        self.view = View(images, data, seed)
        self.order = BatchOrder(len(images), batch_size, seed, images.group_start, WINDOW)
        self._loaded = Prefetched(self._load)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (B, C, size, size) uint8 and labels (B,) int64 of step `step`."""
        return self._loaded(step)

    def _load(self, step: int) -> tuple[Tensor, Tensor]:
        indices = self.order(step)
        return self.view.crops(indices, step), torch.from_numpy(self.view.images.labels[indices])


def as_float(images: Tensor) -> Tensor:
    """uint8 in [0, 255] to float32 in [0, 1]."""
    return images.float() / 255


def as_uint8(images: Tensor) -> Tensor:
    """Float in [0, 1] to uint8, rounded (a plain cast would truncate)."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)
