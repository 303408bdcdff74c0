"""How a token cache of ImageNet's size opens and is read: `python -m tests.speed_of_tokens`, with
7 GB of disk and of memory that nothing else needs. Its 1,281,167 images have 10 views of 256
tokens; random grids are read by one core, first from files that are looked through for the first
time, then again."""

import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from pipeline.data.tokens import SHARD, TokenCache
from pipeline.runtime.files import file_hash, write_json

IMAGES, VIEWS, TOKENS, CODES, CLASSES = 1_281_167, 10, 256, 1024, 1000
BATCH, BATCHES = 256, 2000


def write_cache(folder: Path) -> None:
    rng, shards = np.random.default_rng(0), []
    for number, start in enumerate(range(0, IMAGES, SHARD)):
        count = min(SHARD, IMAGES - start)
        path = folder / f"train-{number:05d}.npy"
        np.save(path, rng.integers(0, CODES, (count, VIEWS, TOKENS), np.uint16))
        shards.append({"file": path.name, "count": count, "hash": file_hash(path)})
    np.save(folder / "train-labels.npy", rng.integers(0, CLASSES, IMAGES, np.int32))
    own = {"codebook_size": CODES, "classes": CLASSES}
    write_json(folder / "manifest.json", own | {"shards": {"train": shards}})


def grids_per_second(tokens: TokenCache, rng: np.random.Generator) -> float:
    started = time.perf_counter()
    for _ in range(BATCHES):
        tokens.batch(rng.integers(0, IMAGES, BATCH), rng.integers(0, VIEWS, BATCH))
    return BATCHES * BATCH / (time.perf_counter() - started)


def main() -> None:
    torch.set_num_threads(1)
    process, rng = psutil.Process(), np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        write_cache(Path(name))
        resident, started = process.memory_info().rss, time.perf_counter()
        tokens = TokenCache(name, "train")
        opened = time.perf_counter() - started
        grown = (process.memory_info().rss - resident) / 2**20
        print(f"{len(tokens):,} images opened in {opened:.2f} s, {grown:.0f} MiB more in memory")
        for what in ("the first time", "again"):
            print(f"{grids_per_second(tokens, rng):,.0f} random grids a second, {what}", flush=True)


if __name__ == "__main__":
    main()
