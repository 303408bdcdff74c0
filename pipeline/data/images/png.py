"""Pictures of our own as PNGs, which lose no pixel, and whether a PNG has all of its own."""

import io
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"IDAT", b"DDAT")  # chunks that Pillow reads pixels of
_HEADER = 13  # bytes
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the kind of colour
_PALETTE = 3  # a kind of colour
_PIECE = 2**16  # bytes that are looked at at once
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


def odd_chunks(content: bytes) -> str | None:
    """Why Pillow would show other colours of a PNG than programs that read it by the standard, with
    the way out; None where it would not.

    Args:
        content: of any format; others are not looked at.
    """
    before: set[bytes] = set()
    colour = bits = 0
    for kind, start, stop in _chunks(content):
        size = stop - start
        if kind == b"IHDR" and size == _HEADER:
            bits, colour = content[start + 8], content[start + 9]
        elif kind == b"PLTE" and (kind in before or size % 3 or not 0 < size <= 768):
            return "of a palette that is damaged; replace or delete it"
        elif kind == b"tRNS":
            late = b"IDAT" in before or (colour == _PALETTE and b"PLTE" not in before)
            values = content[start:stop:2] if colour in (0, 2) and bits <= 8 else b""
            if late or kind in before or any(values):
                return "of a transparency that other programs do not read; save it anew"
        elif kind == b"IEND":
            break
        if kind in (b"IDAT", b"PLTE", b"tRNS"):
            before.add(kind)
    return None


def lacks_rows(content: bytes) -> bool:
    """Whether the pixels of a PNG that Pillow reads end before its last row: Pillow leaves the rest
    black, where the compressed stream ends as it should.

    Args:
        content: of any format; others lack none.
    """
    chunks = _chunks(content)
    kind, start, stop = next(chunks, (b"", 0, 0))
    wanted = _size(content[start:stop]) if kind == b"IHDR" else 0
    stream, pixels = zlib.decompressobj(), 0
    for kind, start, stop in chunks:
        if pixels >= wanted or kind == b"IEND":
            break
        for at in range(start, stop, _PIECE) if kind in _PIXELS else ():
            piece = content[at : min(at + _PIECE, stop)]
            while piece and pixels < wanted and not stream.eof:
                pixels += len(stream.decompress(piece, 16 * _PIECE))
                piece = stream.unconsumed_tail
    return pixels < wanted


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Of a PNG: kind, and where the content begins and ends."""
    at = len(_SIGNATURE) if content.startswith(_SIGNATURE) else len(content)
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4])
        yield content[at + 4 : at + 8], at + 8, at + 8 + size
        at += size + 12


def _size(header: bytes) -> int:
    """Bytes of the pixels, uncompressed, with the one before each row that names its filter; 0 of
    what is no header."""
    if len(header) < _HEADER or header[9] not in _CHANNELS:
        return 0
    width, height = int.from_bytes(header[:4]), int.from_bytes(header[4:8])
    bits = header[8] * _CHANNELS[header[9]]
    passes = _ADAM7 if header[12] else ((0, 0, 1, 1),)
    sides = [
        (len(range(left, width, across)), len(range(top, height, down)))
        for left, top, across, down in passes
    ]
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sides if columns)
