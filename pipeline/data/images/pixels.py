"""Pictures: conversions, crops (paper, section 4.1), grids, and work on many at once."""

import hashlib
import io
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import atomic_file
from pipeline.runtime.process import cores

SCALE_TO = 56  # in a grid, small images are enlarged to at least this many pixels a side
GAP = 2  # pixels between the images of a grid
TRIES = 10  # as torchvision's: crops that stick out are drawn again, then the centre is taken
QUICK = 5e-4  # seconds for an item; below, threads wait longer for Python's lock than they save
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
    """A picture as the bytes of a PNG.

    Args:
        level: of zlib's effort, 1 to 9; -1 is its default.
    """
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
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return _resize(image, (left, top, left + side, top + side), size)


def random_resized_crop(
    image: Image.Image,
    size: int,
    scale: Sequence[float],
    ratio: Sequence[float],
    flip: bool,
    seed: tuple,
) -> Image.Image:
    """Crop a random box of the image and resize it to a square; with `flip`, mirror it half of the
    time.

    Args:
        scale: range of the box's area as a fraction of the image's.
        ratio: range of the box's width / height.
        seed: identifies the draw.
    """
    digest = hashlib.blake2b(repr(seed).encode(), digest_size=16).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
    box = crop_box(image.width, image.height, scale, ratio, rng)
    cropped = _resize(image, box, size)
    if flip and rng.random() < 0.5:
        cropped = cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return cropped


def crop_box(
    width: int,
    height: int,
    scale: Sequence[float],
    ratio: Sequence[float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """Draw (left, top, right, bottom) of a random box inside a width × height image."""
    for _ in range(TRIES):
        area = width * height * rng.uniform(scale[0], scale[1])
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _resize(image: Image.Image, box: tuple[int, int, int, int], size: int) -> Image.Image:
    if box == (0, 0, size, size) == (0, 0, *image.size):
        return image
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def grid_picture(images: Tensor, columns: int) -> Image.Image:
    """A picture of the images in rows of `columns` on white; small images are enlarged without
    smoothing."""
    batch, channels, height, width = images.shape
    rows = -(-batch // columns)
    canvas = np.full(
        (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 255, dtype=np.uint8
    )
    for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        top = GAP + (i // columns) * (height + GAP)
        left = GAP + (i % columns) * (width + GAP)
        canvas[top : top + height, left : left + width] = image
    picture = Image.fromarray(canvas[..., 0] if channels == 1 else canvas)
    factor = max(1, -(-SCALE_TO // height))
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )


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
    threads = cores()
    if threads == 1 or time.perf_counter() - started < QUICK:
        return first + [function(item) for item in items[1:]]
    return first + list(_pool(threads).map(function, items[1:]))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
