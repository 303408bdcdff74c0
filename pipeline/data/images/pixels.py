"""Pictures: conversions, crops (paper, section 4.1), grids, and work on many at once."""

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
TRIES = 10  # as torchvision's: crops that stick out are drawn again, then the centre is taken
QUICK = 5e-4  # seconds for an item; below, threads wait longer for Python's lock than they save
# The section `data` of the params, or another object with image_size, channels, crop_scale,
# crop_ratio and flip.
ImageParams = Any
Box = tuple[int, int, int, int]  # left, top, right, bottom
Item = TypeVar("Item")
Result = TypeVar("Result")


def as_float(images: Tensor) -> Tensor:
    """uint8 in [0, 255] to float32 in [0, 1]."""
    return images.float() / 255


def as_uint8(images: Tensor) -> Tensor:
    """Float in [0, 1] to uint8, rounded (a plain cast would truncate).

    Raises:
        UserError: a value is NaN, which would become any grey.
    """
    if images.isnan().any():
        raise UserError(
            "pixels are NaN",
            "the tokenizer's weights are damaged, or its training diverged",
            "train it again (`dvc repro -f train_tokenizer`), with a lower tokenizer.lr",
        )
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def to_chw(image: Image.Image) -> np.ndarray:
    """The (C, H, W) uint8 array of a grey or RGB picture."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def from_chw(array: np.ndarray) -> Image.Image:
    """The picture of a (C, H, W) uint8 array, grey or RGB."""
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def encode_png(image: Image.Image, level: int = -1) -> bytes:
    """A picture as the bytes of a PNG. `level` is zlib's, 1 to 9; -1 is its default."""
    buffer = io.BytesIO()
    image.save(buffer, format="png", compress_level=level)
    return buffer.getvalue()


def decode_image(content: bytes, channels: int) -> Image.Image:
    """A stored JPEG, PNG or PPM as a picture, grey or RGB."""
    if content.startswith((b"P5\n", b"P6\n")):  # Pillow takes four times as long
        kind, size, _, pixels = content.split(b"\n", 3)
        width, height = map(int, size.split())
        image = Image.frombytes("L" if kind == b"P5" else "RGB", (width, height), pixels)
    else:
        image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square, resized to `size` (bilinear, antialiased)."""
    box = _center_box(*image.size)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def random_resized_crop(image: Image.Image, data: ImageParams, seed: tuple) -> Image.Image:
    """Crop a random box of the image and resize it to a square; with `data.flip`, mirror it half of
    the time.

    Args:
        seed: identifies the draw.
    """
    digest = hashlib.blake2b(repr(seed).encode(), digest_size=16).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
    box, size = crop_box(*image.size, data, rng), (data.image_size, data.image_size)
    cropped = image.resize(size, Image.Resampling.BILINEAR, box=box)
    return ImageOps.mirror(cropped) if data.flip and rng.random() < 0.5 else cropped


def crop_box(width: int, height: int, data: ImageParams, rng: np.random.Generator) -> Box:
    """Draw a random box inside a width × height image. `data.crop_scale` is the range of its area
    as a fraction of the image's, `data.crop_ratio` that of its width / height."""
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
    """A picture of the images in rows of `columns` on white; small images are enlarged without
    smoothing."""
    rows = -(-len(images) // columns)
    # A gap above and to the left of each image, and blank images after the last one.
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
    """`[function(item) for item in items]`, in one thread per core; without threads if there is one
    core or the first item takes less than `QUICK`."""
    items = list(items)
    started = time.perf_counter()
    first = [function(item) for item in items[:1]]
    quick = time.perf_counter() - started < QUICK
    apply = map if quick or cores() == 1 else _pool(cores()).map
    return first + list(apply(function, items[1:]))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
