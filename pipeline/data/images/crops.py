"""Centre crop and RandomResizedCrop (paper, section 4.1), seeded per image so that any worker,
thread or resumed run draws the same view."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

TRIES = 10  # as torchvision's: crops that stick out are drawn again, then the centre is taken


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
