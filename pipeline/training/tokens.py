"""Encodes all images with the tokenizer, and writes the tokens to files (the token cache)."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, TOKENIZER
from pipeline.data.images.pixels import as_float
from pipeline.data.images.shards import ImageShards, View
from pipeline.data.tokens import SHARD, TokenCache
from pipeline.runtime.batches import BatchWorkers, Maker, write_files
from pipeline.runtime.files import atomic_file, file_hash, remove_temporary
from pipeline.runtime.precision import autocast
from pipeline.tokenizer.quantizer import code_usage
from pipeline.weights.published import load_model


class Coder:
    """Encodes images of a split with the tokenizer: `crops` random crops of each image, or its
    centre crop if `crops` is 0."""

    def __init__(self, split: str, crops: int, params: Params, device: torch.device):
        self.tokenizer = load_model(TOKENIZER, "tokenizer", device)
        self.view = View(ImageShards(IMAGES, split), params.data, params.seed)
        self.crops, self.device, self.bf16 = crops, device, params.tokens.bf16

    def __call__(self, start: int, stop: int) -> dict[str, Tensor]:
        """Encode the images in range(start, stop). Returns a dict with `tokens` (B, views, N)
        int32, where views are the crops of an image."""
        chosen = range(start, stop)
        views = [self.view.crops(chosen, draw) for draw in range(self.crops)]
        grids = [self._tokens(images) for images in views or [self.view.centers(chosen)]]
        return {"tokens": torch.stack(grids, dim=1)}

    def _tokens(self, images: Tensor) -> Tensor:
        with autocast(self.device, self.bf16, "convolutions"):
            grid = self.tokenizer.encode(as_float(images).to(self.device))
        return grid.flatten(1).cpu().to(torch.int32)  # Ray cannot pickle torch's uint16


def cache_tokens(
    split: str, crops: int, params: Params, folder: Path, workers: BatchWorkers
) -> list[dict]:
    """Encode a split's images into files `<split>-<number>.npy`: arrays (n, views, N) uint16, with
    N tokens for each view (crop) of n images. `crops` is the number of random crops per image; 0
    means one centre crop. Existing files are kept. Returns {file, count, hash} for each file."""
    images, size = ImageShards(IMAGES, split), params.tokens.batch_size
    remove_temporary(folder)
    batches: dict[Path, list[tuple[int, int]]] = {}
    for number, start in enumerate(range(0, len(images), SHARD)):
        stop = min(start + SHARD, len(images))
        ranges = [(first, min(first + size, stop)) for first in range(start, stop, size)]
        batches[folder / f"{split}-{number:05d}.npy"] = ranges
    maker = Maker(Coder, split, crops, params)
    write_files(batches, workers, maker, f"tokens: {split}", _save_tokens)
    print(f"tokens: encoded {len(images)} images of the split {split}", flush=True)
    _save_array(images.labels.astype(np.int32), folder / f"{split}-labels.npy")
    return [
        {"file": path.name, "count": ranges[-1][1] - ranges[0][0], "hash": file_hash(path)}
        for path, ranges in batches.items()
    ]


def _save_tokens(made: dict[str, Tensor], path: Path) -> None:
    _save_array(made["tokens"].numpy().astype(np.uint16), path)


def _save_array(array: np.ndarray, path: Path) -> None:
    with atomic_file(path) as temporary, open(temporary, "wb") as handle:
        np.save(handle, array)


def cached_code_usage(tokens: TokenCache, codebook_size: int) -> tuple[float, float]:
    """The fraction of codes that occur in the token cache, and the perplexity of code use."""
    counts = torch.zeros(codebook_size, dtype=torch.long)
    for shard in tokens.shards:
        values = torch.from_numpy(shard.astype(np.int64)).flatten()
        counts += torch.bincount(values, minlength=codebook_size)
    return code_usage(counts)
