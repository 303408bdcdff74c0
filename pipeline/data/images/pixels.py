"""Conversions between arrays of pixels, Pillow's pictures and PNG bytes."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.runtime.errors import UserError


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
