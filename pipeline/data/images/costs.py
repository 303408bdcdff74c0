"""What a picture's file may have beside its pixels, looked at before Pillow decodes it.

Pillow reads a file's pieces one by one, in Python: a small file can be made of so many of them, or
have so many tags in the same bytes, that opening it takes minutes or all memory.
"""

import io
import re
from collections.abc import Iterator

from pipeline.data.images.tags import INNER, Block, after_prefix, as_block, number, tags_at
from pipeline.runtime.limits import (
    PICTURE_EXIF,
    PICTURE_HEAD_READS,
    PICTURE_PIECES,
    PICTURE_PIXELS,
    PICTURE_READS,
    PICTURE_SCANNED,
)

WAY_OUT = "(docs/limits.md); save it anew as PNG, or delete it"

_PLAIN = (b"P1", b"P2", b"P3")
_SCAN, _END, _EXIF, _SEVERAL = 0xDA, 0xD9, 0xE1, 0xE2  # markers of a JPEG
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
# Markers that a length follows, and the end. Others, zeros and padding lie between and in scans.
_MARKER = re.compile(rb"\xff[\xc0-\xc7\xc9-\xcf\xd9-\xef\xfe]")


class Costly(ValueError):
    """A picture would take too long. The message says why, and the way out."""


class Metered(io.BytesIO):
    """A file's content that is read in a limited number of pieces: few until its pixels begin, as
    `begin_pixels` says."""

    _left = PICTURE_HEAD_READS

    def begin_pixels(self) -> None:
        self._left = PICTURE_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file.

        Raises:
            Costly: it was read too often.
        """
        self._left -= 1
        if self._left < 0:
            raise Costly(f"made of too many small pieces, or long comments {WAY_OUT}")
        return super().read(size)


def check_costs(content: bytes) -> None:
    """Look at the parts of a file that `Metered` cannot count.

    Raises:
        Costly: it has too many, or is a text of numbers.
    """
    if content.startswith(b"\xff\xd8\xff"):
        _check_jpeg(content)
    elif content.startswith((b"II", b"MM")):
        _check_tags(as_block(content))
    elif content.startswith(_PLAIN):
        raise Costly(f"a PNM picture written as text {WAY_OUT}")


def _check_tags(block: Block | None) -> None:
    if block:
        _check_directory(block, block.first, deeper=2)


def _check_directory(block: Block, place: int, deeper: int) -> None:
    inner: dict[int, int] = {}
    size = 0
    for count, tag in enumerate(tags_at(block, place), start=1):
        if count > PICTURE_PIECES:
            raise Costly(f"of more than {PICTURE_PIECES} tags {WAY_OUT}")
        size += tag.size
        if tag.name in INNER and (found := number(block, tag)) is not None:
            inner[tag.name] = found
    if size > len(block.content):
        raise Costly(f"of tags that share their bytes {WAY_OUT}")
    for further in inner.values() if deeper else ():
        _check_directory(block, further, deeper - 1)


def _check_jpeg(content: bytes) -> None:
    exif: list[bytes] = []
    frame, pixels, scans = 0, 0, 0
    for marker, start, end in _segments(content):
        if marker == _SCAN:
            scans += 1
            if scans == 1 and _few_scans(content, frame, start):
                break
            if scans * pixels > PICTURE_SCANNED:
                raise Costly(f"of {scans} scans or more of {pixels:,} pixels {WAY_OUT}")
        elif marker == _END and scans:
            break
        elif marker in _FRAMES:
            frame = start
            height, width = content[start + 1 : start + 3], content[start + 3 : start + 5]
            pixels = int.from_bytes(height) * int.from_bytes(width)
        elif marker == _EXIF and content.startswith(b"Exif\0\0", start):
            exif.append(content[start + 6 : end])
        elif marker == _SEVERAL and content.startswith(b"MPF\0", start):
            _check_tags(as_block(content[start + 4 : end]))
    if exif:
        _check_exif(b"".join(exif))


def _few_scans(content: bytes, frame: int, scan: int) -> bool:
    """Whether a JPEG's frame and first scan, which begin at these places, or its bytes show that it
    is not of too many scans. Most files need not be looked through for them."""
    progressive = content[frame - 3] in _PROGRESSIVE
    # libjpeg reads no further scan where the first has all components.
    if not progressive and content[frame + 5 : frame + 6] == content[scan : scan + 1]:
        return True
    return content.count(b"\xff\xda") <= PICTURE_SCANNED // PICTURE_PIXELS


def _check_exif(raw: bytes) -> None:
    if len(raw) > PICTURE_EXIF:
        raise Costly(f"of more than {PICTURE_EXIF:,} bytes of EXIF data {WAY_OUT}")
    _check_tags(as_block(raw[after_prefix(raw) :]))


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Of a JPEG: marker, and where what follows its length begins and ends.

    Raises:
        Costly: they are too many.
    """
    at = 2
    for _ in range(PICTURE_PIECES):
        found = _MARKER.search(content, at)
        if not found:
            return
        marker, at = content[found.end() - 1], found.end()
        length = 0 if marker == _END else max(2, int.from_bytes(content[at : at + 2]))
        yield marker, at + 2, at + length
        at += length
    raise Costly(f"of more than {PICTURE_PIECES} segments {WAY_OUT}")
