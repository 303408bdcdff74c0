"""Splitting a data set, and writing it as Parquet shards of encoded images."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.images.shards import ROW_GROUP, SCHEMA, read_labels
from pipeline.data.images.threads import in_threads
from pipeline.prepare.datasets import Source
from pipeline.runtime.checksums import keep_if_whole, note_hash
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import atomic_file, file_hash, remove_temporary, write_json
from pipeline.runtime.progress import PAUSE, progress


def stratified_split(source: Source, val_fraction: float, seed: int) -> dict[str, list[int]]:
    """Item indices of each split, in a seeded order; the source's own split where it has one.

    Raises:
        UserError: a class has too few images to be in both splits.
    """
    rng = np.random.default_rng(seed)
    by_class: dict[int, list[int]] = {label: [] for label in range(len(source.class_names))}
    split: dict[str, list[int]] = {"train": [], "val": []}
    for index, item in enumerate(source.items):
        if item.split is None:
            by_class[item.label].append(index)
        else:
            split[item.split].append(index)
    for label, indices in by_class.items():
        if not indices:
            continue
        if len(indices) < 2:
            raise UserError(
                f"data.source: class '{source.class_names[label]}' has one image; training and "
                f"validation need one each"
            )
        shuffled = rng.permutation(indices).tolist()
        held_out = min(max(1, round(val_fraction * len(shuffled))), len(shuffled) - 1)
        split["val"] += shuffled[:held_out]
        split["train"] += shuffled[held_out:]
    found = {source.items[i].label for i in split["train"]}
    for label, name in enumerate(source.class_names):
        if label not in found:
            raise UserError(f"data.source: class '{name}' has no training image; add some")
    return {name: rng.permutation(indices).tolist() for name, indices in split.items()}


def write_shards(
    source: Source, indices: list[int], split: str, shard_size: int, folder: Path
) -> list[dict]:
    """Write one split as `<split>-00000.parquet` …; a shard that exists and is whole is kept.

    Args:
        indices: of the split's items, in order.
        shard_size: images in a shard.

    Returns:
        {file, count, hash} of each shard.
    """
    shards = []
    remove_temporary(folder)
    with progress(f"shards: {split} images", 0, len(indices), pause=PAUSE) as bar:
        for number, start in enumerate(range(0, len(indices), shard_size)):
            chosen = indices[start : start + shard_size]
            path = folder / f"{split}-{number:05d}.parquet"
            if not keep_if_whole(path):
                columns = {
                    "key": [source.items[i].key for i in chosen],
                    "label": [source.items[i].label for i in chosen],
                    "image": in_threads(source.read, chosen),
                }
                with atomic_file(path) as temporary:
                    table = pa.table(columns, schema=SCHEMA)
                    pq.write_table(table, temporary, row_group_size=ROW_GROUP, compression="none")
                note_hash(path)
            shards.append({"file": path.name, "count": len(chosen), "hash": file_hash(path)})
            bar(start + len(chosen))
    return shards


def write_manifest(folder: Path, source: Source, name: str, shards: dict[str, list[dict]]) -> dict:
    """Write and return the manifest: classes, counts per class, shards and their hashes."""
    counts = {}
    for split, split_shards in shards.items():
        labels = np.concatenate([read_labels(folder / s["file"]) for s in split_shards])
        number = np.bincount(labels, minlength=len(source.class_names))
        counts[split] = dict(zip(source.class_names, number.tolist(), strict=True))
    manifest = {"source": name, "class_names": source.class_names, "counts": counts}
    manifest["shards"] = shards
    write_json(folder / "manifest.json", manifest)
    return manifest
