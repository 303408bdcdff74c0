"""Reading Parquet shards of encoded images: the data set's, and those of samples."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.runtime.checksums import require_hash
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json, require_file

SCHEMA = pa.schema([("key", pa.string()), ("label", pa.int32()), ("image", pa.binary())])
ROW_GROUP = 64  # images in a row group, the least that can be read
WINDOW = 256  # row groups shuffled together, and kept in memory: 16,384 images
MANIFEST = "manifest.json"
WAY_OUT = "run `dvc repro prepare` to make it again (if that runs nothing, delete it first)"


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
    if any(said.row_group(g).num_rows != ROW_GROUP for g in groups[:-1]):
        raise ValueError(f"{path.name} has no row groups of {ROW_GROUP} images")
    table = file.read(["label"])
    if table["label"].null_count:
        raise ValueError(f"{path.name} has images without a label")
    return table["label"].to_numpy()


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
        manifest = read_json(self.folder / MANIFEST, "class_names", "shards")
        self.class_names: list[str] = manifest["class_names"]
        path = self.folder / MANIFEST
        try:
            self._shards: list[dict] = manifest["shards"][split]
            self._files = [self.folder / shard["file"] for shard in self._shards]
            self._hashes: list[str] = [shard["hash"] for shard in self._shards]
            counts = [shard["count"] for shard in self._shards]
            for path in self._files:
                require_file(path)
            labels = []
            for path in self._files:
                labels.append(read_labels(path))
            self.labels = np.concatenate(labels).astype(np.int64)
        except UserError:
            raise
        except Exception as error:  # a damaged file makes its reader raise nearly anything
            reason = " ".join(f"{type(error).__name__} {error}".split())[:150]
            raise UserError(f"{path} is damaged ({reason}); {way_out}") from error
        self._check(labels, counts)
        self._groups = [
            (number, group, min(ROW_GROUP, len(own) - start))
            for number, own in enumerate(labels)
            for group, start in enumerate(range(0, len(own), ROW_GROUP))
        ]
        sizes = np.array([size for *_, size in self._groups])
        self.group_start = np.concatenate([[0], np.cumsum(sizes)])
        self._cache: OrderedDict[int, tuple[list[str], list[bytes]]] = OrderedDict()

    def _check(self, labels: list[np.ndarray], counts: list[int]) -> None:
        if [len(each) for each in labels] != counts:
            raise UserError(
                f"images in {self.folder}: not as many as in the manifest; {self._way_out}"
            )
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise UserError(f"images in {self.folder}: labels of no class; {self._way_out}")

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

    def _read_group(self, group: int) -> tuple[list[str], list[bytes]]:
        if group not in self._cache:
            number, row_group, _ = self._groups[group]
            require_hash(self._files[number], self._way_out, self._hashes[number])
            table = pq.ParquetFile(self._files[number]).read_row_group(row_group, ["key", "image"])
            self._cache[group] = (table["key"].to_pylist(), table["image"].to_pylist())
            if len(self._cache) > WINDOW:
                self._cache.popitem(last=False)
        self._cache.move_to_end(group)
        return self._cache[group]
