"""Parquet shards of encoded images: the data set's, and those of samples."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.images.threads import in_threads
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import atomic_file, file_hash, read_json, remove_temporary, write_json
from pipeline.runtime.progress import PAUSE, progress

SCHEMA = pa.schema([("key", pa.string()), ("label", pa.int32()), ("image", pa.binary())])
ROW_GROUP = 64  # images in a row group, the least that can be read
WINDOW = 256  # row groups shuffled together, and held in memory: 16,384 images
MANIFEST = "manifest.json"
WAY_OUT = "run `dvc repro prepare` to make it again (if that runs nothing, delete it first)"


class Labelled(Protocol):
    """An image's key, from which the seeds of its crops may derive, and its class."""

    @property
    def key(self) -> str: ...

    @property
    def label(self) -> int: ...


class Pictures(Protocol):
    """What shards are written of: `pipeline.prepare.split.Source` has these members."""

    @property
    def class_names(self) -> list[str]: ...

    @property
    def items(self) -> Sequence[Labelled]: ...

    def read(self, index: int) -> bytes:
        """The encoded image of `items[index]`; several threads call it at once."""


def write_shards(
    source: Pictures, indices: Sequence[int], split: str, shard_size: int, folder: Path
) -> list[dict]:
    """Write one split as `<split>-00000.parquet` …; a shard that exists is kept.

    Args:
        indices: of the split's items, in order.
        shard_size: images in a shard.

    Returns:
        {file, count, hash} of each shard.
    """
    shards = []
    remove_temporary(folder)
    with progress(f"shards: {split} images", 0, len(indices), pause=PAUSE) as bar:
        for path, start, stop in plan_shards(len(indices), split, shard_size, folder):
            chosen = indices[start:stop]
            if not path.exists():
                groups = (chosen[i : i + ROW_GROUP] for i in range(0, len(chosen), ROW_GROUP))
                images = (image for group in groups for image in in_threads(source.read, group))
                write_shard(path, [source.items[i] for i in chosen], images)
            shards.append(shard_entry(path, len(chosen)))
            bar(stop)
    return shards


def plan_shards(
    count: int, split: str, shard_size: int, folder: Path
) -> Iterator[tuple[Path, int, int]]:
    """The file of each shard of `count` images, with the numbers of its images."""
    for number, start in enumerate(range(0, count, shard_size)):
        yield folder / f"{split}-{number:05d}.parquet", start, min(start + shard_size, count)


def write_shard(path: Path, items: Sequence[Labelled], images: Iterable[bytes]) -> None:
    """Write a shard of encoded images, a row group at a time."""
    rest = iter(images)
    with (
        atomic_file(path) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="none") as file,
    ):
        for start in range(0, len(items), ROW_GROUP):
            group = items[start : start + ROW_GROUP]
            columns = {
                "key": [item.key for item in group],
                "label": [item.label for item in group],
                "image": list(islice(rest, len(group))),
            }
            file.write_table(pa.table(columns, schema=SCHEMA))


def shard_entry(path: Path, count: int) -> dict:
    """A shard in the manifest."""
    return {"file": path.name, "count": count, "hash": file_hash(path)}


def write_manifest(
    folder: Path, class_names: list[str], name: str, shards: dict[str, list[dict]]
) -> dict:
    """Write and return the manifest: classes, counts per class, and the shards."""
    counts = {}
    for split, entries in shards.items():
        labels = np.concatenate([read_labels(folder / entry["file"]) for entry in entries])
        counts[split] = dict.fromkeys(class_names, 0)
        numbers = np.bincount(labels, minlength=len(class_names)).tolist()
        for class_name, number in zip(class_names, numbers, strict=True):
            counts[split][class_name] += number  # two classes of ImageNet have one name
    manifest = {"source": name, "class_names": class_names, "counts": counts, "shards": shards}
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Path, way_out: str = WAY_OUT) -> dict[str, Any]:
    """The manifest of shards; `way_out` ends the message if it cannot be read."""
    return read_json(folder / MANIFEST, "class_names", "shards", way_out=way_out)


def read_labels(path: Path) -> np.ndarray:
    """Labels (n,) of the images in a shard."""
    return pq.ParquetFile(path).read(["label"])["label"].to_numpy()


class ImageShards:
    """Random access to one split; recently used row groups stay in memory.

    Args:
        way_out: ends the message if a file cannot be read.

    Raises:
        UserError: a file is missing, or cannot be read.
    """

    def __init__(self, folder: Path | str, split: str, way_out: str = WAY_OUT):
        self.folder, self._way_out = Path(folder), way_out
        manifest = read_manifest(self.folder, way_out)
        self.class_names: list[str] = manifest["class_names"]
        shards = manifest["shards"][split]
        self._hashes: list[str] = [shard["hash"] for shard in shards]
        self._starts = np.cumsum([0] + [shard["count"] for shard in shards])
        labels, self._groups, sizes = [], [], []
        for shard in shards:
            path = self.folder / shard["file"]
            labels.append(self._readable(path, read_labels, path))
            for group, start in enumerate(range(0, len(labels[-1]), ROW_GROUP)):
                self._groups.append((path, group))
                sizes.append(min(ROW_GROUP, len(labels[-1]) - start))
        self.labels = np.concatenate(labels).astype(np.int64)
        self.group_start = np.cumsum([0, *sizes])
        self._cache: OrderedDict[int, tuple[list[str], list[bytes]]] = OrderedDict()

    def hashes(self, count: int) -> list[str]:
        """Of the files that hold the first `count` images."""
        return self._hashes[: np.searchsorted(self._starts, count)]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict()}  # travels without the images in memory

    def __len__(self) -> int:
        return int(self.group_start[-1])

    def read(self, index: int) -> tuple[str, bytes]:
        """(key, encoded image) of one image."""
        group = int(np.searchsorted(self.group_start, index, side="right")) - 1
        keys, images = self._read_group(group)
        row = index - int(self.group_start[group])
        return keys[row], images[row]

    def read_each(self, indices: Sequence[int]) -> list[tuple[str, bytes]]:
        """The same of several images. Those in memory are read first: others take their place."""
        groups = np.searchsorted(self.group_start, indices, side="right") - 1
        order = sorted(range(len(indices)), key=lambda row: groups[row] not in self._cache)
        found = {row: self.read(indices[row]) for row in order}
        return [found[row] for row in range(len(indices))]

    def _read_group(self, group: int) -> tuple[list[str], list[bytes]]:
        if group not in self._cache:
            path, number = self._groups[group]
            table = self._readable(path, _read_row_group, path, number)
            self._cache[group] = table["key"].to_pylist(), table["image"].to_pylist()
            if len(self._cache) > WINDOW:
                self._cache.popitem(last=False)
        self._cache.move_to_end(group)
        return self._cache[group]

    def _readable(self, path: Path, read: Any, *arguments: Any) -> Any:
        try:
            return read(*arguments)
        except Exception as error:  # a damaged file makes its reader raise nearly anything
            require_readable(path, error)
            reason = "missing" if isinstance(error, FileNotFoundError) else "damaged"
            raise UserError(str(path), reason, self._way_out) from error


def _read_row_group(path: Path, group: int) -> pa.Table:
    return pq.ParquetFile(path).read_row_group(group, ["key", "image"])
