"""What a JPEG 2000 says of its numbers and channels, which Pillow does not tell."""

import contextlib
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image

_CODE = b"\xff\x4f\xff\x51"  # the markers with which a code stream begins
_BOX = struct.Struct(">I4s")
_DEFINITION = struct.Struct(">3H")
_SIZES = 42  # bytes from those markers to the first channel
_COLOUR, _OPACITY = 0, 1  # kinds of channels
_NO_COLOUR = (0, 65535)  # of a channel that is all of the image, or none of it
_SPACES = (12, 16, 17, 18)  # CMYK, sRGB, grey, sYCC
_DEFINED = 2**10  # bytes of definitions that are read
_MOST = 100  # boxes that are looked at
_TILE = b"\xff\x90"  # the marker with which a part of a tile begins
_PARTS = 2**18  # markers and parts of tiles that are looked at


def odd_bits(image: Image.Image) -> int:
    """The bits of a channel of which Pillow makes other numbers than those of the same range in 8
    or 16 bits: it shifts colours, so that white may turn grey, or black. 0 where there is none:
    all have 8 bits, or a grey 10 to 16.

    Args:
        image: opened and not loaded; of one that is loaded nothing is known.
    """
    with rewound(image) as file:
        bits = _bits(file) if file else []
    grey = len(bits) == 1 and 10 <= bits[0] <= 16
    return 0 if grey else next((each for each in bits if each != 8), 0)


def odd_channels(image: Image.Image) -> bool:
    """Whether the file says of its channels what Pillow passes over: that they are in another order
    than red, green, blue, or neither colours nor plain transparency.

    Args:
        image: opened and not loaded; of one that is loaded nothing is known.
    """
    with rewound(image) as file:
        return file is not None and any(
            kind not in (_COLOUR, _OPACITY)
            or (kind == _COLOUR and colour not in (channel + 1, *_NO_COLOUR))
            for channel, kind, colour in _definitions(file)
        )


def odd_colours(image: Image.Image) -> bool:
    """Whether it has a palette, of which Pillow reads some as other colours, or its colours are
    neither grey, RGB, CMYK nor the YCC of which the decoder makes RGB.

    Args:
        image: opened and not loaded; of one that is loaded nothing is known.
    """
    with rewound(image) as file:
        if file is None:
            return False
        boxes = list(_header(file))
        colours = next((box for box in boxes if box[0] == b"colr"), None)  # others are not read
        if colours:
            file.seek(colours[1])
            content = file.read(min(colours[2] - colours[1], 7))
            enumerated = len(content) == 7 and content[0] == 1
            if enumerated and int.from_bytes(content[3:]) not in _SPACES:
                return True
        return any(kind == b"pclr" for kind, _, _ in boxes)


def lacks_tiles(image: Image.Image) -> bool:
    """Whether the code stream has not all of its tiles: Pillow leaves the others black.

    Args:
        image: opened and not loaded; of one that is loaded nothing is known.
    """
    with rewound(image) as file:
        if file is None or not (head := _stream(file)):
            return False
        right, bottom, _, _, width, height, left, top = struct.unpack(">8I", head[8:40])
        wanted = -(-(right - left) // max(width, 1)) * -(-(bottom - top) // max(height, 1))
        return len(_tiles(file)) < wanted


def _tiles(file: BinaryIO) -> set[int]:
    """The numbers of the tiles that lie in a code stream, whose head was just read."""
    found, at = set[int](), file.tell() - _SIZES + 2  # of the first marker but one
    for _ in range(_PARTS):
        file.seek(at)
        marker = file.read(12)
        if len(marker) < 12 or marker[0] != 0xFF:
            break
        if marker[:2] != _TILE:
            at += 2 + int.from_bytes(marker[2:4])
            continue
        found.add(int.from_bytes(marker[4:6]))
        if not (size := int.from_bytes(marker[6:10])):  # to the end
            break
        at += size
    return found


@contextlib.contextmanager
def rewound(image: Image.Image) -> Iterator[BinaryIO | None]:
    """The image's file, whose place is kept."""
    file = getattr(image, "fp", None)
    place = file.tell() if file else 0
    try:
        yield file
    finally:
        if file:
            file.seek(place)


def _bits(file: BinaryIO) -> list[int]:
    """Of each channel; none where the code stream is not found."""
    head = _stream(file)
    channels = int.from_bytes(head[-2:])
    return [1 + (each & 0x7F) for each in file.read(3 * channels)[::3]]


def _stream(file: BinaryIO) -> bytes:
    """The head of the code stream, up to the first channel, which is read next; empty where there
    is none."""
    file.seek(next((at for kind, at, _ in _boxes(file) if kind == b"jp2c"), 0))
    head = file.read(_SIZES)
    return head if len(head) == _SIZES and head.startswith(_CODE) else b""


def _definitions(file: BinaryIO) -> list[tuple[int, int, int]]:
    """Of each channel that the file defines: its number, its kind (0 is a colour) and which colour
    it is, from 1."""
    found = next((box for box in _header(file) if box[0] == b"cdef"), None)
    if not found:
        return []
    file.seek(found[1])
    content = file.read(min(found[2] - found[1], _DEFINED))
    count = min(int.from_bytes(content[:2]), (len(content) - 2) // _DEFINITION.size)
    return [_DEFINITION.unpack_from(content, 2 + i * _DEFINITION.size) for i in range(count)]


def _header(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """The boxes that say what the numbers mean."""
    outer = next((box for box in _boxes(file) if box[0] == b"jp2h"), None)
    return _boxes(file, *outer[1:]) if outer else iter(())


def _boxes(file: BinaryIO, at: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Boxes of a file, or of a box with that content: kind, and where the content begins and ends.
    A code stream without boxes has none."""
    end = file.seek(0, os.SEEK_END) if end is None else end
    for _ in range(_MOST):
        file.seek(min(at, end))
        head = file.read(16)
        if len(head) < 8 or at >= end or head.startswith(_CODE):
            return
        length, kind = _BOX.unpack(head[:8])
        inside = 16 if length == 1 else 8
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
        if length < inside:  # to the end of the file, or damaged
            length = end - at
        yield kind, at + inside, min(at + length, end)
        at += length
