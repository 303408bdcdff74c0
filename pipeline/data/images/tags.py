"""Directories of tags, as TIFF files and EXIF data have them.

They are looked at without the values that they lead to: thousands of tags may share the same bytes,
which Pillow copies for each.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from pipeline.runtime.limits import PICTURE_PIECES

ORIENTATION = 0x0112
INNER = (0x8769, 0x8825, 0xA005)  # lead to further directories: EXIF, GPS, interoperability
BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
WHOLE = {3: "H", 4: "L", 8: "h", 9: "l", 13: "L", 16: "Q"}  # kinds that are whole numbers
# What Pillow takes for a start; two of these are in no specification.
STARTS = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")

_EXIF = re.compile(rb"(?:Exif\0\0)*")
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


class Tag(NamedTuple):
    name: int
    kind: int  # of its values, as TIFF numbers them
    place: int  # of its first value, in the block
    size: int  # bytes of its values; 0 where they do not lie in the block


class Block(NamedTuple):
    """A TIFF file, or the EXIF data of another."""

    content: bytes
    order: str  # of bytes, as `struct` writes it
    large: bool  # of 64-bit places
    first: int  # place of the first directory


def as_block(content: bytes) -> Block | None:
    """None where it is none."""
    if content[:4] not in STARTS:
        return None
    order = "<" if content[:2] == b"II" else ">"
    large = content[2] == 43  # as Pillow has it, which misses it in big-endian order
    try:
        (first,) = struct.unpack_from(order + ("Q" if large else "L"), content, 8 if large else 4)
    except struct.error:
        return None
    return Block(content, order, large, first)


def tags_at(block: Block, place: int) -> Iterator[Tag]:
    """The tags of a directory, as far as the block goes."""
    counter, entry = ("Q", "HHQ8s") if block.large else ("H", "HHL4s")
    step, head = struct.calcsize(block.order + entry), struct.calcsize(block.order + counter)
    start = place + head
    if start > len(block.content):
        return
    (promised,) = struct.unpack_from(block.order + counter, block.content, place)
    count = min(promised, (len(block.content) - start) // step)
    address = block.order + ("Q" if block.large else "L")
    for at in range(start, start + count * step, step):
        name, kind, values, value = struct.unpack_from(block.order + entry, block.content, at)
        size = values * BYTES.get(kind, 0)
        inside = size <= len(value)  # else it is the place of the values
        where = at + step - len(value) if inside else struct.unpack(address, value)[0]
        yield Tag(name, kind, where, size if where + size <= len(block.content) else 0)


def number(block: Block, tag: Tag) -> int | None:
    """The first value of a tag; None where it has no whole number."""
    if not tag.size or tag.kind not in WHOLE:
        return None
    return struct.unpack_from(block.order + WHOLE[tag.kind], block.content, tag.place)[0]


# Where Pillow keeps what tells it.
TAGS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")


def orientation(info: Mapping[Any, Any]) -> int:
    """How a picture lies, as EXIF numbers it: 1 (upright) to 8.

    Args:
        info: what Pillow keeps of a picture. Of its EXIF data no other tag is read.
    """
    said = _of_exif(_exif(info))
    if said is None:
        said = _of_xmp(info)
    return said if said is not None and 1 <= said <= 8 else 1


def _exif(info: Mapping[Any, Any]) -> bytes:
    raw = info.get("exif")
    if raw is None and (text := info.get("Raw profile type exif")):  # ImageMagick's, in a PNG
        try:
            raw = bytes.fromhex("".join(text.split("\n")[3:]))
        except ValueError:
            return b""
    return raw if isinstance(raw, bytes) else b""


def _of_exif(raw: bytes) -> int | None:
    block = as_block(raw[after_prefix(raw) :]) if raw else None
    if block is None:
        return None
    found = islice(tags_at(block, block.first), PICTURE_PIECES)
    return next((number(block, tag) for tag in found if tag.name == ORIENTATION), None)


def after_prefix(raw: bytes) -> int:
    """Where the directories of EXIF data begin, after what tells that they are EXIF."""
    found = _EXIF.match(raw)
    return found.end() if found else 0


def _of_xmp(info: Mapping[Any, Any]) -> int | None:
    xmp = info.get("XML:com.adobe.xmp") or info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    found = _XMP.search(xmp) if isinstance(xmp, bytes) else None
    return int(found[1]) if found else None
