"""Bits of the numbers in a JPEG 2000, which Pillow does not tell."""

import struct
from typing import BinaryIO

from PIL import Image

_CODE = b"\xff\x4f\xff\x51"  # the markers with which a code stream begins
_BOX = struct.Struct(">I4s")
_SIZES = 42  # bytes from those markers to the first channel


def odd_bits(image: Image.Image) -> int:
    """The bits of a channel of which Pillow makes other numbers than those of the same range in 8
    or 16 bits: it shifts colours, so that white may turn grey, or black. 0 where there is none:
    all have 8 bits, or a grey 10 to 16.

    Args:
        image: opened and not loaded; of one that is loaded nothing is known.
    """
    file = getattr(image, "fp", None)
    if file is None:
        return 0
    place = file.tell()
    try:
        bits = _bits(file)
    finally:
        file.seek(place)
    grey = len(bits) == 1 and 10 <= bits[0] <= 16
    return 0 if grey else next((each for each in bits if each != 8), 0)


def _bits(file: BinaryIO) -> list[int]:
    """Of each channel; none where the code stream is not found."""
    start = _code_stream(file)
    file.seek(start)
    head = file.read(_SIZES)
    if len(head) < _SIZES or not head.startswith(_CODE):
        return []
    (channels,) = struct.unpack(">H", head[-2:])
    return [1 + (each & 0x7F) for each in file.read(3 * channels)[::3]]


def _code_stream(file: BinaryIO) -> int:
    """Where it begins: with the file, or in one of its boxes."""
    file.seek(0)
    if file.read(4) == _CODE:
        return 0
    at = 0
    while True:
        file.seek(at)
        head = file.read(16)
        if len(head) < 16:
            return at
        length, kind = _BOX.unpack(head[:8])
        inside = 16 if length == 1 else 8
        if kind == b"jp2c":
            return at + inside
        if length == 1:
            (length,) = struct.unpack(">Q", head[8:])
        if length < inside:  # to the end of the file, or damaged
            return at
        at += length
