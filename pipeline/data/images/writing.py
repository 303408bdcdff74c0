"""Writing Parquet shards of encoded images: a data set's, and those of samples."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.images.shards import MANIFEST, ROW_GROUP, SCHEMA, count_classes, read_labels
from pipeline.data.images.threads import in_threads
from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.files import atomic_file, file_hash, remove_temporary, write_json
from pipeline.runtime.progress import PAUSE, progress


class Labelled(Protocol):
    """What is said of an image."""

    @property
    def key(self) -> str:
        """Unique and stable: seeds of the image's crops may derive from it."""

    @property
    def label(self) -> int: ...


class Pictures(Protocol):
    """What shards are written of."""

    @property
    def class_names(self) -> list[str]: ...

    @property
    def items(self) -> Sequence[Labelled]: ...

    def read(self, index: int) -> bytes:
        """The encoded image of `items[index]`; several threads call it at once."""


def write_shards(
    source: Pictures, indices: Sequence[int], split: str, shard_size: int, folder: Path
) -> list[dict]:
    """Write one split as `<split>-00000.parquet` …; a shard that exists is kept.

    Args:
        indices: of the split's items, in order.
        shard_size: images in a shard.

    Returns:
        {file, count, hash} of each shard.
    """
    shards = []
    remove_temporary(folder)
    with progress(f"shards: {split} images", 0, len(indices), pause=PAUSE) as bar:
        for path, start, stop in plan_shards(len(indices), split, shard_size, folder):
            chosen = indices[start:stop]
            if not path.exists():
                write_shard(
                    path, [source.items[i] for i in chosen], _read_in_groups(source, chosen)
                )
            shards.append(shard_entry(path, len(chosen)))
            bar(stop)
    return shards


def plan_shards(
    count: int, split: str, shard_size: int, folder: Path
) -> Iterator[tuple[Path, int, int]]:
    """The shards of so many images: each one's file, and its images from the second number to
    before the third."""
    for number, start in enumerate(range(0, count, shard_size)):
        yield folder / f"{split}-{number:05d}.parquet", start, min(start + shard_size, count)


def _read_in_groups(source: Pictures, chosen: Sequence[int]) -> Iterator[bytes]:
    """So that of a shard of large pictures few are in memory at once."""

    def read(index: int) -> bytes:
        try:
            return source.read(index)
        except OSError as error:  # which the writer would take for its own
            key, reason = source.items[index].key, error.strerror or one_line(str(error))
            raise UserError(f"{key} cannot be read ({reason}); replace it") from error

    for start in range(0, len(chosen), ROW_GROUP):
        yield from in_threads(read, chosen[start : start + ROW_GROUP])


def write_shard(path: Path, items: Sequence[Labelled], images: Iterable[bytes]) -> None:
    """Write a shard of encoded images, a row group at a time."""
    rest = iter(images)
    with (
        atomic_file(path) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="none") as file,
    ):
        for start in range(0, len(items), ROW_GROUP):
            group = items[start : start + ROW_GROUP]
            columns = {
                "key": [item.key for item in group],
                "label": [item.label for item in group],
                "image": list(islice(rest, len(group))),
            }
            file.write_table(pa.table(columns, schema=SCHEMA))


def shard_entry(path: Path, count: int) -> dict:
    """What a manifest says of a shard."""
    return {"file": path.name, "count": count, "hash": file_hash(path)}


def write_manifest(
    folder: Path, class_names: list[str], name: str, shards: dict[str, list[dict]]
) -> dict:
    """Write and return the manifest: classes, counts per class, shards and their hashes."""
    counts = {}
    for split, split_shards in shards.items():
        labels = np.concatenate([read_labels(folder / s["file"]) for s in split_shards])
        counts[split] = count_classes(class_names, labels)
    manifest = {"source": name, "class_names": class_names, "counts": counts}
    manifest["shards"] = shards
    write_json(folder / MANIFEST, manifest)
    return manifest
