"""Pictures of our own as PNGs, which lose no pixel, and whether a PNG has all of its own."""

import io
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIECE = 2**20  # bytes that are inflated at once
# The passes of an interlaced picture: where each begins, and its steps, across and down.
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


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


def lacks_rows(content: bytes) -> bool:
    """Whether the pixels of a PNG that Pillow reads end before its last row: Pillow leaves the rest
    black, where the compressed stream ends as it should.

    Args:
        content: of any format; others lack none.
    """
    if not content.startswith(_SIGNATURE):
        return False
    wanted, stream, pixels = 0, zlib.decompressobj(), 0
    for kind, chunk in _chunks(content):
        if kind == b"IHDR":
            wanted = _size(chunk)
        elif kind == b"IDAT":
            while pixels < wanted and chunk and not stream.eof:
                pixels += len(stream.decompress(chunk, _PIECE))
                chunk = stream.unconsumed_tail
    return pixels < wanted


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4])
        yield content[at + 4 : at + 8], content[at + 8 : at + 8 + size]
        at += size + 12


def _size(header: bytes) -> int:
    """Bytes of the pixels, uncompressed, with the one before each row that names its filter."""
    width, height = int.from_bytes(header[:4]), int.from_bytes(header[4:8])
    bits = header[8] * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[header[9]]
    passes = _ADAM7 if header[12] else ((0, 0, 1, 1),)
    sides = [
        (len(range(left, width, across)), len(range(top, height, down)))
        for left, top, across, down in passes
    ]
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sides if columns)
