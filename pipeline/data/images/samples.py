"""Draws samples from a model, and stores them as shards, like the data set's images. The stage
`evaluate` draws samples with each network and seed of Table 1; other stages read them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import torch

from pipeline.data.images.pixels import encode_png, from_chw, in_threads
from pipeline.data.images.shards import (
    MANIFEST,
    SAMPLES,
    Item,
    open_shard,
    write_manifest,
    write_shard,
    write_shards,
)
from pipeline.runtime.batches import (
    BatchWorkers,
    Maker,
    drop_parts,
    load_part,
    make_parts,
    parts_folder,
)

LEVEL = 1  # zlib's compression level: a third of the default's time, 10% more bytes


def draw_samples(
    batches: Sequence[tuple],
    labels: Sequence[int],
    class_names: list[str],
    *,
    workers: BatchWorkers,
    maker: Maker,
    batch_size: int,
    shard_size: int,
    folder: Path,
    name: str,
) -> None:
    """Draw samples and write them as shards, unless the shards exist. The worker that draws a
    batch also encodes its images. If a run was killed, the next run draws only missing batches.

    Args:
        batches: for each batch, the arguments to pass to the function that `maker` makes.
        maker: makes the function that draws one batch (B, C, H, W) uint8 (see `Maker`).
        labels: labels (M,) of the samples.
        batch_size: number of samples in each batch but the last.
        name: name of the samples in progress messages.
    """
    if (folder / MANIFEST).exists():  # the manifest is written last
        return
    parts = parts_folder(folder)
    files = {parts / f"{n:06d}.arrow": batch for n, batch in enumerate(batches)}
    items = [Item(f"{n:08d}", label) for n, label in enumerate(labels)]

    def save_batch(encoded: list[bytes], path: Path) -> None:
        start = int(path.stem) * batch_size
        write_shard(path, items[start : start + len(encoded)], encoded)

    make_parts(files, workers, Maker(_encoder, maker), name, save_batch)
    drawn = pa.concat_tables([load_part(file, open_shard) for file in files])["image"]
    source: Any = SimpleNamespace(items=items, read=lambda index: drawn[index].as_py())
    shards = write_shards(source, range(len(items)), SAMPLES, shard_size, folder)
    write_manifest(folder, class_names, SAMPLES, {SAMPLES: shards})
    drop_parts(folder)


def _encoder(maker: Maker, device: torch.device) -> Callable[..., list[bytes]]:
    make = maker.open(device)

    def draw_and_encode(*arguments: object) -> list[bytes]:
        return in_threads(lambda i: encode_png(from_chw(i), LEVEL), make(*arguments).numpy())

    return draw_and_encode
