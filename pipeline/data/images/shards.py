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
from pipeline.runtime.checksums import require_hash, require_in_place
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
        way_out: ends the message where it is damaged.

    Raises:
        UserError: it is missing or damaged, or its `class_names` are no names of classes.
    """
    manifest = read_json(folder / MANIFEST, "class_names", "shards", way_out=way_out)
    names, counts = manifest["class_names"], manifest.get("counts", {})
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise UserError(
            f"{folder / MANIFEST} is damaged: its class_names are no list of names; {way_out}"
        )
    # A name may be that of two classes, as two are in torchvision's ImageNet.
    known = isinstance(counts, dict) and all(map(_are_counts, counts.values()))
    if not known or any(set(names) != set(count) for count in counts.values()):
        raise UserError(
            f"{folder / MANIFEST} is damaged: its class_names are not those of its counts; "
            f"{way_out}"
        )
    return manifest


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(type(n) is int and n >= 0 for n in value.values())


def read_labels(path: Path) -> np.ndarray:
    """Labels (n,) of the images in a shard.

    Raises:
        ValueError: it has other columns, or other row groups, than `write_shards` gives it.
    """
    file = pq.ParquetFile(path)
    columns, said = file.schema_arrow, file.metadata
    if any(f.name not in columns.names or columns.field(f.name).type != f.type for f in SCHEMA):
        raise ValueError(f"{path.name} has no columns key, label and image of the right types")
    groups = range(said.num_row_groups)
    rows = [said.row_group(g).num_rows for g in groups]
    if any(n != ROW_GROUP for n in rows[:-1]) or any(n > ROW_GROUP for n in rows):
        raise ValueError(f"{path.name} has no row groups of {ROW_GROUP} images")
    table = file.read(["label"])
    if table["label"].null_count:
        raise ValueError(f"{path.name} has images without a label")
    return table["label"].to_numpy()


def _require_plain(group: pq.RowGroupMetaData) -> None:
    """Look at a row group before it is read: a small file may hold compressed gigabytes.

    Raises:
        ValueError: it is compressed, which `write_shards` leaves to the pictures' own formats.
    """
    columns = map(group.column, range(group.num_columns))
    if any(column.compression != "UNCOMPRESSED" for column in columns):
        raise ValueError("it is compressed")


def count_classes(class_names: list[str], labels: np.ndarray) -> dict[str, int]:
    """Images of each class; of two classes with one name, together."""
    counts = dict.fromkeys(class_names, 0)
    numbers = np.bincount(labels, minlength=len(class_names)).tolist()
    for name, number in zip(class_names, numbers, strict=True):
        counts[name] += number
    return counts


class ImageShards:
    """Random access to one split; recently used row groups stay in memory. A file is compared with
    its hash when its first image is read.

    Args:
        way_out: ends the message where they are damaged.

    Raises:
        UserError: a file is missing, is not the one that was written, or holds something else than
            the manifest says.
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
            for path, known in zip(self._files, self._hashes, strict=True):
                require_in_place(path, way_out)
                if not isinstance(known, str) or len(known) != 64:
                    raise ValueError("it has no hash")
                labels.append(read_labels(path))
            self.labels = np.concatenate(labels).astype(np.int64)
        except UserError:
            raise
        except Exception as error:  # a damaged file makes its reader raise nearly anything
            require_readable(path, error)
            reason = " ".join(f"{type(error).__name__} {error}".split())[:150]
            raise UserError(f"{path} is damaged ({reason}); {way_out}") from error
        self._check(labels, manifest.get("counts", {}).get(split))
        self._groups = [
            (number, group, min(ROW_GROUP, len(own) - start))
            for number, own in enumerate(labels)
            for group, start in enumerate(range(0, len(own), ROW_GROUP))
        ]
        sizes = np.array([size for *_, size in self._groups])
        self.group_start = np.concatenate([[0], np.cumsum(sizes)])
        self._cache: OrderedDict[int, tuple[list[str], list[bytes]]] = OrderedDict()

    def hashes(self, count: int) -> list[str]:
        """Of the files that hold the first so many images."""
        return self._hashes[: np.searchsorted(self._starts, count)]

    def _check(self, labels: list[np.ndarray], counts: dict[str, int] | None) -> None:
        if [len(each) for each in labels] != np.diff(self._starts).tolist():
            raise UserError(
                f"images in {self.folder}: not as many as in the manifest; {self._way_out}"
            )
        if not len(self.labels):
            raise UserError(f"images in {self.folder}: there are none; {self._way_out}")
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise UserError(f"images in {self.folder}: labels of no class; {self._way_out}")
        if counts not in (None, count_classes(self.class_names, self.labels)):
            raise UserError(
                f"images in {self.folder}: classes of other sizes than in the manifest; "
                f"{self._way_out}"
            )

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
            require_hash(path, self._way_out, self._hashes[number])
            try:
                file = pq.ParquetFile(path)
                _require_plain(file.metadata.row_group(row_group))
                table = file.read_row_group(row_group, ["key", "image"])
                keys, images = (table[name].to_pylist() for name in ("key", "image"))
                for name, values in (("key", keys), ("image", images)):
                    if None in values:
                        row = row_group * ROW_GROUP + values.index(None)
                        raise ValueError(f"row {row} has no {name}")
            except Exception as error:  # a damaged file makes its reader raise nearly anything
                require_readable(path, error)
                reason = " ".join(str(error).split())[:150]
                raise UserError(f"{path} is damaged ({reason}); {self._way_out}") from error
            self._cache[group] = (keys, images)
            if len(self._cache) > WINDOW:
                self._cache.popitem(last=False)
        self._cache.move_to_end(group)
        return self._cache[group]
