"""Pictures of other bits than 8 a channel: as they are, or refused; never as another picture."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from pipeline.data.images.opening import BadPicture, decode_image, open_image

CODE = b"\xff\x4f\xff\x51"  # begins a JPEG 2000's code stream


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def grey_png(bits: int, values: np.ndarray, clear: int) -> bytes:
    """8 × 8 pixels in a file of grey numbers of few bits, one of them transparent."""
    shifts = np.arange(8 - bits, -1, -bits)
    rows = (values.reshape(8, -1, len(shifts)) << shifts).sum(-1).astype(np.uint8)
    head = struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"tRNS", struct.pack(">H", clear))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("bits", [2, 4])
def test_the_transparent_grey_of_few_bits_shows_the_background(bits):
    values = np.arange(64).reshape(8, 8) % 2**bits
    for clear in range(2**bits):
        shown = np.asarray(decode_image(grey_png(bits, values, clear), 1))
        grey = np.round(values * 255 / (2**bits - 1))
        np.testing.assert_array_equal(shown, np.where(values == clear, 255, grey))


def jpeg2000(mode: str, bits: int, boxes: bool = True) -> bytes:
    """A picture whose file says that its numbers have so many bits."""
    image = Image.fromarray(np.full((16, 16), 200, np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG2000", no_jp2=not boxes)
    content = bytearray(buffer.getvalue())
    first = content.index(CODE) + 42
    for channel in range(len(image.getbands())):
        content[first + 3 * channel] = bits - 1
    if boxes:
        content[content.index(b"ihdr") + 14] = bits - 1
    return bytes(content)


needs_jpeg2000 = pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow lacks OpenJPEG")


@needs_jpeg2000
@pytest.mark.parametrize("boxes", [True, False])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("bits", [1, 4, 7, 9, 12, 16])
def test_a_jpeg2000_of_other_bits_is_refused(mode, bits, boxes):
    """Pillow shifts them: white of 4 bits would be grey, and of 16 bits black."""
    content = jpeg2000(mode, bits, boxes)
    if mode == "L" and bits >= 10:  # which are read as they are
        assert Image.open(io.BytesIO(content)).mode == "I;16"
        return
    with pytest.raises(BadPicture, match=f"of {bits} bits a channel, in JPEG 2000; convert it"):
        open_image(content)


@needs_jpeg2000
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg2000_of_8_bits_is_read(mode):
    for boxes in (True, False):
        assert np.abs(np.asarray(open_image(jpeg2000(mode, 8, boxes))).astype(int) - 200).max() <= 2


def planar_tiff(bits: int, fill_order: int = 1) -> bytes:
    """16 × 16 colours in uncompressed planes."""
    plane = 16 * 16 * bits // 8
    entries = [
        *((256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 3, 0), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((266, 3, 1, fill_order), (273, 4, 3, 1), (277, 3, 1, 3), (278, 3, 1, 16)),
        *((279, 4, 3, 2), (284, 3, 1, 2)),
    ]
    after = 8 + 2 + 12 * len(entries) + 4
    pixels = after + 6 + 12 + 12
    places = [after, after + 6, after + 18]
    body = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, count, value in entries:
        field = struct.pack("<I", places[value]) if count == 3 else struct.pack("<HH", value, 0)
        body += struct.pack("<HHI", tag, kind, count) + field
    body += bytes(4) + struct.pack("<3H", *[bits] * 3)
    body += struct.pack("<3I", *(pixels + plane * n for n in range(3))) + struct.pack(
        "<3I", *[plane] * 3
    )
    ramp = np.arange(256) * (257 if bits == 16 else 1)
    return body + b"".join(np.roll(ramp, n).astype(f"<u{bits // 8}").tobytes() for n in range(3))


def test_planes_of_8_bits_are_read_and_of_16_refused():
    image = np.asarray(open_image(planar_tiff(8)))
    ramp = np.arange(256)
    expected = np.stack([np.roll(ramp, n) for n in range(3)], -1).reshape(16, 16, 3)
    np.testing.assert_array_equal(image, expected)
    for content in (planar_tiff(16), planar_tiff(8, fill_order=2)):
        with pytest.raises(BadPicture, match="uncompressed planes that are not read right"):
            open_image(content)
