"""Pictures of other bits than 8 a channel: as they are, or refused; never as another picture."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from pipeline.data.images.opening import BadPicture, decode_image, open_image
from pipeline.data.images.png import encode_png, lacks_rows

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


def png(*rows: bytes, interlaced: int = 0) -> bytes:
    """A grey picture of 8 × 8 pixels, of those rows of it."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, interlaced))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
        + chunk(b"IEND", b"")
    )


# The widths of the rows of the seven passes of 8 × 8 pixels.
ADAM7 = [1, 1, 2, *2 * [2], *2 * [4], *4 * [4], *4 * [8]]


@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_png_that_lacks_rows_is_refused(interlaced):
    """Pillow leaves them black, where the compressed stream ends as it should."""
    rows = [bytes(width * [200]) for width in (ADAM7 if interlaced else 8 * [8])]
    assert np.asarray(open_image(png(*rows, interlaced=interlaced), whole=True)).min() == 200
    for left in range(len(rows)):
        with pytest.raises(BadPicture, match="truncated"):
            open_image(png(*rows[:left], interlaced=interlaced), whole=True)


def header(colour: int = 0, height: int = 8, length: int = 13) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", 8, height, 8, colour, 0, 0, 0)[:length])


STRANGE = [header(colour=1), header(length=4), header(height=80), chunk(b"IDAT", b"more"), b"more"]


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("place", ["behind the end", "behind the pixels"])
def test_what_pillow_does_not_read_of_a_png_lacks_no_row(strange, place):
    """As bytes that others put behind a picture."""
    content = png(*8 * [bytes(8 * [200])])
    at = len(content) - (0 if place == "behind the end" else 12)
    odd = content[:at] + strange + content[at:]
    assert not lacks_rows(odd)
    if place == "behind the end":
        assert np.asarray(open_image(odd, whole=True)).min() == 200


@pytest.mark.parametrize("start", [b"", header(colour=1), header(length=4), chunk(b"abcd", b"")])
def test_of_a_png_without_a_header_nothing_is_said(start):
    assert not lacks_rows(b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(b"\0")))


def test_rows_may_lie_in_many_chunks_and_in_those_of_another_name():
    content = png(*8 * [bytes(8 * [200])])
    packed = zlib.compress(b"".join(8 * [b"\0" + bytes(8 * [200])]))
    own = chunk(b"IDAT", packed)
    parts = [chunk(b"IDAT", b""), chunk(b"IDAT", packed[:5]), chunk(b"DDAT", packed[5:])]
    assert content.count(own) == 1 and not lacks_rows(content.replace(own, b"".join(parts)))
    assert lacks_rows(content.replace(own, b"".join(parts[:2])))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (13, 7), (100, 33)])
def test_a_whole_png_lacks_none(mode, size):
    image = Image.new("L", size, 9)
    image = image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
    assert not lacks_rows(encode_png(image))


@pytest.mark.parametrize("mode", ["P", "PA"])
def test_a_palette_of_8_bits_in_a_tiff_is_refused(mode):
    """Of 16 bits, as its standard says, the same numbers are black."""
    image, buffer = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)), io.BytesIO()
    image.convert("P").convert(mode).save(buffer, "TIFF")
    assert np.asarray(open_image(buffer.getvalue())).max() == 255
    wide, narrow = (struct.pack("<256H", *range(0, 256 * s, s)) for s in (256, 1))
    assert buffer.getvalue().count(wide) == 3
    with pytest.raises(BadPicture, match="a palette of 8 bits, which is read as black"):
        open_image(buffer.getvalue().replace(wide, narrow))


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
        with pytest.raises(BadPicture, match="of planes that are not read right"):
            open_image(content)


def with_definitions(mode: str, *named: tuple[int, int, int], behind: bytes = b"") -> bytes:
    """A JPEG 2000 that says of each channel its number, kind and colour."""
    buffer = io.BytesIO()
    Image.new(mode, (16, 16), "#c86400").save(buffer, "JPEG2000")
    content = buffer.getvalue()
    listed = b"".join(struct.pack(">3H", *each) for each in named) + behind
    box = struct.pack(">I4sH", 10 + len(listed), b"cdef", len(named)) + listed
    at = content.index(b"jp2h") - 4
    (length,) = struct.unpack(">I", content[at : at + 4])
    longer = struct.pack(">I", length + len(box)) + content[at + 4 : at + length] + box
    return content[:at] + longer + content[at + length :]


IN_ORDER = ((0, 0, 1), (1, 0, 2), (2, 0, 3))


@needs_jpeg2000
def test_a_jpeg2000_whose_channels_are_swapped_is_refused():
    with pytest.raises(
        BadPicture, match="channels in an order or of a kind that is not read right"
    ):
        open_image(with_definitions("RGB", (0, 0, 3), (1, 0, 2), (2, 0, 1)))


@needs_jpeg2000
@pytest.mark.parametrize(
    ("mode", "named", "behind"),
    [
        ("RGB", IN_ORDER, b""),
        ("RGB", IN_ORDER, struct.pack(">3H", 0, 0, 3)),  # more than it counts
        ("L", [(0, 0, 1)], b""),
        ("L", [(0, 0, 0)], b""),  # all of the image
        ("L", [(0, 0, 65535)], b""),  # none of it
    ],
)
def test_a_jpeg2000_whose_channels_are_in_order_is_read(mode, named, behind):
    shown = np.asarray(open_image(with_definitions(mode, *named, behind=behind)), dtype=int)
    own = np.asarray(Image.new(mode, (16, 16), "#c86400"), dtype=int)
    assert np.abs(shown - own).max() <= 3


@needs_jpeg2000
@pytest.mark.parametrize("length", [0, 2**31, 2**63])
def test_a_box_of_any_length_before_the_pixels_is_a_line(length):
    content = with_definitions("RGB", *IN_ORDER)
    at = content.index(b"jp2c") - 4
    size = struct.pack(">I4sQ", 1, b"free", length) if length > 2**32 else b""
    box = size or struct.pack(">I4s", length, b"free")
    with pytest.raises(BadPicture) as caught:
        open_image(content[:at] + box + content[at:])
    assert "int too large" not in str(caught.value)
