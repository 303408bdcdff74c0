"""Reading the Parquet shards of encoded images that `prepare` writes."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipeline.runtime.files import read_json

ROW_GROUP = 64  # images in a row group, the least that can be read
WINDOW = 256  # row groups shuffled together, and kept in memory: 16,384 images


def read_labels(path: Path) -> np.ndarray:
    """Labels (n,) of the images in a shard."""
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
        self.labels = np.concatenate([read_labels(path) for path in self._files]).astype(np.int64)
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
