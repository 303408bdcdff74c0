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
    if mode == "L" and bits >= 10:
        pytest.skip("read as it is")
    with pytest.raises(BadPicture, match=f"of {bits} bits a channel, in JPEG 2000; convert it"):
        open_image(jpeg2000(mode, bits, boxes))


@needs_jpeg2000
@pytest.mark.parametrize("boxes", [True, False])
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_grey_jpeg2000_of_10_to_16_bits_is_scaled(bits, boxes):
    value = 200 - 2**7 + 2 ** (bits - 1)  # a file has the difference to the middle
    expected = value / 2**bits * 255
    image = np.asarray(open_image(jpeg2000("L", bits, boxes)))
    assert image.dtype == np.uint8 and np.abs(image - expected).max() <= 1


@needs_jpeg2000
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg2000_of_8_bits_is_read(mode):
    for boxes in (True, False):
        assert np.abs(np.asarray(open_image(jpeg2000(mode, 8, boxes))).astype(int) - 200).max() <= 2


def planar_tiff(bits: int, *, samples: int = 3, fill_order: int = 1, photometric: int = 2) -> bytes:
    """16 × 16 pixels in uncompressed planes."""
    plane = 16 * 16 * bits // 8
    after = 8 + 2 + 12 * 11 + 4  # where what has no room in the tags begins
    pixels = after + 6 + 12 + 12
    places, sizes = [pixels + plane * n for n in range(samples)], [plane] * samples
    many = {258: ("H", [bits] * samples), 273: ("I", places), 279: ("I", sizes)}
    one = {
        256: 16,
        257: 16,
        259: 1,
        262: photometric,
        266: fill_order,
        277: samples,
        278: 16,
        284: 2,
    }
    tags, behind = b"", b""
    for tag in sorted(one | many):
        form, values = many.get(tag, ("H", [one.get(tag)]))
        packed = struct.pack(f"<{len(values)}{form}", *values)
        if len(packed) > 4:
            packed, behind = struct.pack("<I", after + len(behind)), behind + packed
        kind = {"H": 3, "I": 4}[form]
        tags += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<IH", 8, 11) + tags + bytes(4) + behind
    ramp = np.arange(256) * (257 if bits == 16 else 1)
    planes = (np.roll(ramp, n).astype(f"<u{bits // 8}").tobytes() for n in range(samples))
    return head.ljust(pixels, b"\0") + b"".join(planes)


def test_planes_of_8_bits_are_read_and_of_16_refused():
    image = np.asarray(open_image(planar_tiff(8)))
    ramp = np.arange(256)
    expected = np.stack([np.roll(ramp, n) for n in range(3)], -1).reshape(16, 16, 3)
    np.testing.assert_array_equal(image, expected)
    grey = np.asarray(open_image(planar_tiff(8, samples=1, photometric=1)))
    np.testing.assert_array_equal(grey, ramp.reshape(16, 16))
    odd = [planar_tiff(16), planar_tiff(8, fill_order=2)]
    odd += [planar_tiff(8, samples=1, photometric=0), planar_tiff(16, samples=1, photometric=1)]
    for content in odd:
        with pytest.raises(BadPicture, match="uncompressed planes that are not read right"):
            open_image(content)
