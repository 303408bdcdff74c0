"""Writing the token cache: every image's token grids."""

from pathlib import Path

import numpy as np
import torch

from pipeline.config.params import Params
from pipeline.data.images.pixels import as_float
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.views import View
from pipeline.data.tokens import SHARD, TokenCache
from pipeline.runtime.files import atomic_file, file_hash, write_json
from pipeline.tokenizer import Tokenizer
from pipeline.tokenizer.quantizer import code_usage


def cache_tokens(
    tokenizer: Tokenizer, images_dir: Path, split: str, crops: int, params: Params, folder: Path
) -> list[dict]:
    """Encode one split into `<split>-00000.npy` …, each (n, views, N) uint16; files that exist are
    kept.

    Args:
        crops: number of seeded random views of each image; 0 for its centre crop alone.

    Returns:
        {file, count, hash} of each shard.
    """
    images = ImageShards(images_dir, split)
    view = View(images, params.data, params.seed)
    device = next(tokenizer.parameters()).device
    shards = []
    for number, start in enumerate(range(0, len(images), SHARD)):
        path = folder / f"{split}-{number:05d}.npy"
        stop = min(start + SHARD, len(images))
        if not path.exists():
            tokens = np.empty((stop - start, max(crops, 1), params.num_tokens), dtype=np.uint16)
            for first in range(start, stop, params.tokens.batch_size):
                chosen = range(first, min(first + params.tokens.batch_size, stop))
                for draw in range(max(crops, 1)):
                    views = view.crops(chosen, draw) if crops else view.centers(chosen)
                    grid = tokenizer.encode(as_float(views).to(device)).flatten(1).cpu().numpy()
                    tokens[first - start : first - start + len(chosen), draw] = grid
            with atomic_file(path) as temporary, open(temporary, "wb") as handle:
                np.save(handle, tokens)
            print(f"tokens: {split} {stop}/{len(images)} images", flush=True)
        shards.append({"file": path.name, "count": stop - start, "hash": file_hash(path)})
    labels = folder / f"{split}-labels.npy"
    with atomic_file(labels) as temporary, open(temporary, "wb") as handle:
        np.save(handle, images.labels.astype(np.int32))
    return shards


def write_manifest(folder: Path, params: Params, tokenizer_hash: str, shards: dict) -> None:
    """Write the manifest: grid, codebook size, views, the tokenizer's hash, and the shards."""
    manifest = {
        "grid": params.grid,
        "codebook_size": params.tokenizer.codebook_size,
        "crops_per_image": params.tokens.crops_per_image,
        "dtype": "uint16",
        "layout": "(images, views, grid * grid), row by row",
        "tokenizer": tokenizer_hash,
        "shards": shards,
    }
    write_json(folder / "manifest.json", manifest)


def cached_code_usage(tokens: TokenCache, codebook_size: int) -> tuple[float, float]:
    """Fraction of codes that the whole cache uses, and its perplexity; reads one shard at a
    time."""
    counts = torch.zeros(codebook_size, dtype=torch.long)
    for shard in tokens.shards:
        values = torch.from_numpy(shard.astype(np.int64)).flatten()
        counts += torch.bincount(values, minlength=codebook_size)
    return code_usage(counts)
