"""Pictures of our own as PNGs, which lose no pixel."""

import io

import numpy as np
from PIL import Image


def from_chw(array: np.ndarray) -> Image.Image:
    """A picture of a (C, H, W) uint8 array, grey or RGB."""
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def encode_png(image: Image.Image, level: int = -1) -> bytes:
    """A picture as the bytes of a PNG.

    Args:
        level: of zlib's effort, 1 to 9; -1 is its default.
    """
    buffer = io.BytesIO()
    image.save(buffer, format="png", compress_level=level)
    return buffer.getvalue()
