"""Converts and encodes images, crops them (paper, section 4.1), and arranges them in a grid."""

import hashlib
import io
import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import atomic_file
from pipeline.runtime.process import cores

SCALE_TO = 56  # in a grid, small images are enlarged to at least this many pixels a side
GAP = 2  # pixels between the images of a grid
GREY = 128  # value of the pixels of masked tokens and of hidden pixels in pictures
TRIES = 10  # attempts to draw a crop inside the image, before the centre crop (as torchvision)
QUICK = 5e-4  # seconds per item below which threads are slower, because of Python's global lock
# The params section `data`, or another object with image_size, channels, crop_scale, crop_ratio
# and flip.
ImageParams = Any
Box = tuple[int, int, int, int]  # left, top, right, bottom
Item = TypeVar("Item")
Result = TypeVar("Result")


def as_float(images: Tensor) -> Tensor:
    """Convert uint8 images in [0, 255] to float32 in [0, 1]."""
    return images.float() / 255


def as_uint8(images: Tensor) -> Tensor:
    """Convert float images in [0, 1] to uint8, with rounding (a plain cast would truncate). Raises
    a `UserError` if a value is NaN, which a cast would turn into an arbitrary number."""
    if images.isnan().any():
        raise UserError(
            "pixels are NaN",
            "the tokenizer's weights are damaged, or its training diverged",
            "set a lower tokenizer.lr and run `dvc repro`",
        )
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def to_chw(image: Image.Image) -> np.ndarray:
    """Convert a grey or RGB Pillow picture to a (C, H, W) uint8 array."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def from_chw(array: np.ndarray) -> Image.Image:
    """Convert a (C, H, W) uint8 array, grey or RGB, to a Pillow picture."""
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def encode_png(image: Image.Image, level: int = -1) -> bytes:
    """Encode a picture as a PNG. `level` is zlib's compression level, 0 to 9; -1 is the default."""
    buffer = io.BytesIO()
    image.save(buffer, format="png", compress_level=level)
    return buffer.getvalue()


def decode_image(content: bytes, channels: int) -> Image.Image:
    """Decode a stored JPEG, PNG or PPM to a grey (`channels` 1) or RGB picture."""
    if content.startswith((b"P5\n", b"P6\n")):  # for PPM, Pillow's decoder is four times slower
        kind, size, _, pixels = content.split(b"\n", 3)
        width, height = map(int, size.split())
        image = Image.frombytes("L" if kind == b"P5" else "RGB", (width, height), pixels)
    else:
        image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Crop the largest centred square and resize it to `size` (bilinear, antialiased)."""
    box = _center_box(*image.size)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def random_resized_crop(image: Image.Image, data: ImageParams, seed: tuple) -> Image.Image:
    """Crop a random box (see `crop_box`) and resize it to `data.image_size` × `data.image_size`. If
    `data.flip` is true, mirror the result with probability 1/2. Equal seeds give the same crop."""
    digest = hashlib.blake2b(repr(seed).encode(), digest_size=16).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
    box, size = crop_box(*image.size, data, rng), (data.image_size, data.image_size)
    cropped = image.resize(size, Image.Resampling.BILINEAR, box=box)
    return ImageOps.mirror(cropped) if data.flip and rng.random() < 0.5 else cropped


def crop_box(width: int, height: int, data: ImageParams, rng: np.random.Generator) -> Box:
    """Draw a random box inside a width × height image. `data.crop_scale` is the range of the box's
    area as a share of the image's area, and `data.crop_ratio` the range of its width / height."""
    least, most = map(math.log, data.crop_ratio)
    for _ in range(TRIES):
        area = width * height * rng.uniform(*data.crop_scale)
        aspect = math.exp(rng.uniform(least, most))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    return _center_box(width, height)


def _center_box(width: int, height: int) -> Box:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def grid_picture(images: Tensor, columns: int) -> Image.Image:
    """Arrange images (n, C, H, W) uint8 in rows of `columns` images on a white background. Images
    less than `SCALE_TO` pixels high are enlarged without smoothing."""
    rows = -(-len(images) // columns)
    # Pad each image with a gap above and to the left, and fill the last row with blank images.
    cells = F.pad(images, (GAP, 0, GAP, 0, 0, 0, 0, rows * columns - len(images)), value=255)
    by_row = cells.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
    canvas = F.pad(by_row.flatten(3).flatten(1, 2), (0, GAP, 0, GAP), value=255)
    factor = max(1, -(-SCALE_TO // images.shape[2]))
    return ImageOps.scale(from_chw(canvas.numpy()), factor, Image.Resampling.NEAREST)


def save_picture(picture: Image.Image, path: Path | str) -> Path:
    with atomic_file(path) as temporary:
        picture.save(temporary, format="png")
    return Path(path)


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Compute `[function(item) for item in items]` with one thread per core. With one core, or if
    the first item takes less than `QUICK` seconds, no threads are used."""
    items = list(items)
    started = time.perf_counter()
    first = [function(item) for item in items[:1]]
    quick = time.perf_counter() - started < QUICK
    apply = map if quick or cores() == 1 else _pool(cores()).map
    return first + list(apply(function, items[1:]))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
