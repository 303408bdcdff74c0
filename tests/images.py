"""Images and token caches for tests."""

import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pyarrow import feather
from torch import Tensor

from pipeline.data.images.samples import draw_samples
from pipeline.runtime.batches import BatchWorkers, Maker
from pipeline.runtime.files import file_hash, write_json


def noise_image(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, 3)
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


def png_of_size(width: int, height: int) -> bytes:
    """Return the first bytes of a PNG, without pixels."""
    chunk = b"IHDR" + width.to_bytes(4) + height.to_bytes(4) + b"\x08\0\0\0\0"
    crc = zlib.crc32(chunk).to_bytes(4)
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + chunk + crc + b"\0\0\0\0IEND\xaeB`\x82"


def noise_array(count: int, channels: int, seed: int = 0) -> np.ndarray:
    """Return noise images (count, channels, 5, 7) uint8."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, channels, 5, 7), dtype=np.uint8)


def samples_in(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read published samples (M, C, H, W) uint8 and their labels (M,) as other programs would."""
    tables = [feather.read_table(path) for path in sorted(folder.glob("*.arrow"))]
    rows = [row for table in tables for row in table.to_pylist()]
    pictures = [np.asarray(Image.open(io.BytesIO(row["image"]))) for row in rows]
    images = [p[None] if p.ndim == 2 else p.transpose(2, 0, 1) for p in pictures]
    return np.stack(images), np.array([row["label"] for row in rows])


def write_samples(
    images: np.ndarray,
    labels: Sequence[int],
    class_names: list[str],
    shard_size: int,
    folder: Path,
    batch_size: int = 32,
) -> None:
    """Write images (M, C, H, W) uint8 as samples drawn batch by batch."""

    def draw(start: int) -> Tensor:
        return torch.from_numpy(images[start : start + batch_size].copy())

    draw_samples(
        [(start,) for start in range(0, len(images), batch_size)],
        labels,
        class_names,
        workers=BatchWorkers(torch.device("cpu")),
        maker=Maker(draw, here=draw),
        batch_size=batch_size,
        shard_size=shard_size,
        folder=folder,
        name="test",
    )


def image_batches(step: int) -> tuple[Tensor, Tensor]:
    """Six grey noise images (6, 1, 8, 8) uint8 of three classes, as a training step reads them."""
    noise = torch.Generator().manual_seed(step)
    images = torch.randint(256, (6, 1, 8, 8), generator=noise).to(torch.uint8)
    return images, torch.arange(6) % 3


def banded_batches(step: int) -> tuple[Tensor, Tensor]:
    """Twelve grey images (12, 1, 8, 8) uint8 of three classes that can be learned: the class is the
    place of a bright band of four rows. All pixels have dim noise."""
    noise = torch.Generator().manual_seed(step)
    images = torch.randint(64, (12, 1, 8, 8), generator=noise)
    labels = torch.arange(12) % 3
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 2 * label : 2 * label + 4] += 160
    return images.to(torch.uint8), labels


def write_token_cache(
    folder: Path, grids: dict[str, list[np.ndarray]], labels: dict[str, np.ndarray], codes: int
) -> Path:
    """Write a token cache of given grids.

    Args:
        grids: of each split, its shards (n, views, N).
        labels: of each split.
        codes: number of codes of the codebook.
    """
    folder.mkdir()
    manifest = {}
    for split, shards in grids.items():
        names = [f"{split}-{number:05d}.npy" for number in range(len(shards))]
        for name, shard in zip(names, shards, strict=True):
            np.save(folder / name, shard.astype(np.uint16))
        manifest[split] = [
            {"file": name, "count": len(shard), "hash": file_hash(folder / name)}
            for name, shard in zip(names, shards, strict=True)
        ]
        np.save(folder / f"{split}-labels.npy", labels[split].astype(np.int32))
    classes = int(max(of.max() for of in labels.values())) + 1
    own = {"codebook_size": codes, "classes": classes}
    write_json(folder / "manifest.json", own | {"shards": manifest})
    return folder
