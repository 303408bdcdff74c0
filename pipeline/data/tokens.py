"""Reads the token cache: the token grids of all images, as memory-mapped uint16 arrays."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime.batches import load_part
from pipeline.runtime.files import read_json

SHARD = 8192  # images per file of tokens
WAY_OUT = "run `dvc repro cache_tokens` (if DVC runs nothing, delete the file first)"


class TokenCache:
    """The tokens of one split ("train" or "val"), memory-mapped. Raises a `UserError` if a file is
    missing or cannot be read."""

    def __init__(self, folder: Path | str, split: str):
        folder = Path(folder)
        manifest = read_json(folder / "manifest.json", "shards", "classes", way_out=WAY_OUT)
        load = partial(np.load, mmap_mode="r")
        files = [folder / shard["file"] for shard in manifest["shards"][split]]
        self.shards = [load_part(file, load, WAY_OUT) for file in files]  # (n, views, N) uint16
        self.labels = load_part(folder / f"{split}-labels.npy", np.load, WAY_OUT)
        self.num_classes: int = manifest["classes"]
        _, self.views, self.num_tokens = self.shards[0].shape
        self._start = np.cumsum([0] + [len(s) for s in self.shards])

    def __len__(self) -> int:
        return int(self._start[-1])

    def batch(self, indices: np.ndarray, views: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return tokens (B, N) int64 and labels (B,) int64. Row i has the tokens of stored crop
        number `views[i]` of image number `indices[i]`, and this image's label."""
        shard = np.searchsorted(self._start, indices, side="right") - 1
        tokens = np.empty((len(indices), self.num_tokens), dtype=np.int64)
        for number in np.unique(shard):
            rows = shard == number
            tokens[rows] = self.shards[number][indices[rows] - self._start[number], views[rows]]
        return torch.from_numpy(tokens), torch.from_numpy(self.labels[indices].astype(np.int64))

    def everything(self) -> tuple[Tensor, Tensor]:
        """Tokens (M, N) of the first stored crop of every image, and labels (M,)."""
        indices = np.arange(len(self))
        return self.batch(indices, np.zeros_like(indices))
