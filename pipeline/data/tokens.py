"""The token cache: every image's token grids, as memory-mapped uint16 arrays."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json

SHARD = 8192  # images whose tokens lie in one file


class TokenCache:
    """One split of the cache; tokens stay on disk until they are asked for."""

    def __init__(self, folder: Path | str, split: str):
        folder = Path(folder)
        manifest = read_json(folder / "manifest.json")
        try:
            self.shards = [
                np.load(folder / s["file"], mmap_mode="r") for s in manifest["shards"][split]
            ]
            self.labels = np.load(folder / f"{split}-labels.npy")
        except (OSError, ValueError) as error:
            raise UserError(
                f"token cache {folder}: {error}; run `dvc repro cache_tokens`"
            ) from error
        self._start = np.cumsum([0] + [len(s) for s in self.shards])
        self.views = self.shards[0].shape[1]
        self.num_tokens = self.shards[0].shape[2]

    def __len__(self) -> int:
        return int(self._start[-1])

    @property
    def num_classes(self) -> int:
        """Of the split, in which every class has an image."""
        return int(self.labels.max()) + 1

    def batch(self, indices: np.ndarray, views: np.ndarray) -> tuple[Tensor, Tensor]:
        """Tokens (B, N) int64 and labels (B,) int64 of chosen images, each in a chosen view."""
        shard = np.searchsorted(self._start, indices, side="right") - 1
        tokens = np.empty((len(indices), self.num_tokens), dtype=np.int64)
        for number in np.unique(shard):
            rows = shard == number
            tokens[rows] = self.shards[number][indices[rows] - self._start[number], views[rows]]
        return torch.from_numpy(tokens), torch.from_numpy(self.labels[indices].astype(np.int64))

    def everything(self) -> tuple[Tensor, Tensor]:
        """First view of every image: tokens (M, N) and labels (M,)."""
        indices = np.arange(len(self))
        return self.batch(indices, np.zeros_like(indices))
