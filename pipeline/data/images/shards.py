"""Reading Parquet shards of encoded images: the data set's, and those of samples."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.data.images.opening import BadPicture, decode_image
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import read_json

SCHEMA = pa.schema([("key", pa.string()), ("label", pa.int32()), ("image", pa.binary())])
ROW_GROUP = 64  # images in a row group, the least that can be read
WINDOW = 256  # row groups shuffled together, and kept in memory: 16,384 images
MANIFEST = "manifest.json"
WAY_OUT = "run `dvc repro prepare` to make it again (if that runs nothing, delete it first)"


def read_manifest(folder: Path, way_out: str = WAY_OUT) -> dict[str, Any]:
    """The manifest of shards of images.

    Args:
        way_out: ends the message if it cannot be read.
    """
    return read_json(folder / MANIFEST, "class_names", "shards", way_out=way_out)


def read_labels(path: Path) -> np.ndarray:
    """Labels (n,) of the images in a shard."""
    return pq.ParquetFile(path).read(["label"])["label"].to_numpy()


def count_classes(class_names: list[str], labels: np.ndarray) -> dict[str, int]:
    """Images of each class; of two classes with one name, together."""
    counts = dict.fromkeys(class_names, 0)
    numbers = np.bincount(labels, minlength=len(class_names)).tolist()
    for name, number in zip(class_names, numbers, strict=True):
        counts[name] += number
    return counts


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
        path = self.folder / MANIFEST
        try:
            shards = manifest["shards"][split]
            self._files = [self.folder / shard["file"] for shard in shards]
            self._hashes: list[str] = [shard["hash"] for shard in shards]
            self._starts = np.cumsum([0] + [shard["count"] for shard in shards])
            labels = []
            for path in self._files:
                labels.append(read_labels(path))
            self.labels = np.concatenate(labels).astype(np.int64)
        except Exception as error:  # a damaged file makes its reader raise nearly anything
            raise self._damaged(path, error) from error
        self._groups = [
            (number, group, min(ROW_GROUP, len(own) - start))
            for number, own in enumerate(labels)
            for group, start in enumerate(range(0, len(own), ROW_GROUP))
        ]
        sizes = np.array([size for *_, size in self._groups])
        self.group_start = np.concatenate([[0], np.cumsum(sizes)])
        self._cache: OrderedDict[int, tuple[list[str], list[bytes]]] = OrderedDict()

    def _damaged(self, path: Path, error: Exception) -> UserError:
        require_readable(path, error)
        if isinstance(error, FileNotFoundError):
            return UserError(str(path), "missing", self._way_out)
        return UserError(str(path), "damaged", self._way_out)

    def hashes(self, count: int) -> list[str]:
        """Of the files that hold the first so many images."""
        return self._hashes[: np.searchsorted(self._starts, count)]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict()}  # travels without what is in memory

    def __len__(self) -> int:
        return int(self.group_start[-1])

    def read(self, index: int) -> tuple[str, bytes]:
        """(key, encoded image) of one image."""
        group = int(np.searchsorted(self.group_start, index, side="right")) - 1
        keys, images = self._read_group(group)
        row = index - int(self.group_start[group])
        return keys[row], images[row]

    def read_each(self, indices: Sequence[int]) -> list[tuple[str, bytes]]:
        """The same of several images. Those whose row groups are in memory are read first, since
        others may take their place."""
        groups = np.searchsorted(self.group_start, indices, side="right") - 1
        rows = sorted(range(len(indices)), key=lambda row: groups[row] not in self._cache)
        found = {row: self.read(indices[row]) for row in rows}
        return [found[row] for row in range(len(indices))]

    def decode(self, index: int, content: bytes, channels: int) -> Image.Image:
        """The picture of an image that was read: grey or RGB, of 8 bits.

        Raises:
            UserError: it is none that `decode_image` takes.
        """
        try:
            return decode_image(content, channels)
        except BadPicture as error:
            number = int(np.searchsorted(self._starts, index, side="right")) - 1
            reason = str(error).partition(";")[0]  # whose way out is that of a picture's file
            raise UserError(
                f"{self._files[number]}: the picture in row {index - self._starts[number]} is "
                f"{reason}; {self._way_out}"
            ) from error

    def _read_group(self, group: int) -> tuple[list[str], list[bytes]]:
        if group not in self._cache:
            number, row_group, _ = self._groups[group]
            path = self._files[number]
            try:
                table = pq.ParquetFile(path).read_row_group(row_group, ["key", "image"])
                keys, images = (table[name].to_pylist() for name in ("key", "image"))
            except Exception as error:  # a damaged file makes its reader raise nearly anything
                raise self._damaged(path, error) from error
            self._cache[group] = (keys, images)
            if len(self._cache) > WINDOW:
                self._cache.popitem(last=False)
        self._cache.move_to_end(group)
        return self._cache[group]
