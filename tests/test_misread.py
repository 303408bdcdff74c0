"""Pictures that Pillow would read as other pictures: refused, each by what it is."""

import io
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, features

from pipeline.data.images.opening import BadPicture, open_image
from pipeline.data.images.threads import Allowance
from tests.fuzz_pictures import encoded

SIDE = 4
GREY = bytes(range(0, 240, 15))  # 4 × 4 pixels
COLOURS = bytes(value for grey in GREY for value in (grey, 7, 200))


def tiff(photometric: int, planes: list[bytes], rows: int = SIDE, **tags) -> bytes:
    """An uncompressed picture of so many rows a strip: all samples of a pixel together (one plane),
    or apart."""
    samples = len(planes) if len(planes) > 1 else len(planes[0]) // SIDE**2
    pixels, strip = b"".join(planes), rows * SIDE * samples
    strips = [pixels[at : at + strip] for at in range(0, len(pixels), strip)]
    if len(planes) > 1:
        strips = planes
    values = {
        **{256: [SIDE], 257: [SIDE], 258: [8] * samples, 259: [1], 262: [photometric]},
        **{273: [0] * len(strips), 277: [samples], 278: [rows], 279: [*map(len, strips)]},
        **({284: [2]} if len(planes) > 1 else {}),
        **{int(name.removeprefix("tag")): value for name, value in tags.items()},
    }
    behind = 8 + 2 + 12 * len(values) + 4
    extra = sum(4 * len(value) for value in values.values() if len(value) > 1)
    if values[273] == [0] * len(strips):
        places = np.cumsum([0, *map(len, strips[:-1])]) + behind + extra
        values[273] = places.tolist()
    entries, data = b"", b""
    for tag, value in sorted(values.items()):
        packed = struct.pack(f"<{len(value)}I", *value)
        if len(value) > 1:
            packed, data = struct.pack("<I", behind + len(data)), data + packed
        entries += struct.pack("<HHI", tag, 4, len(value)) + packed
    head = b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4)
    return head + data + pixels


def test_the_file_of_these_tests_is_read_where_it_is_whole():
    for rows in (1, 2, SIDE):
        grey = np.asarray(open_image(tiff(1, [GREY], rows)))
        np.testing.assert_array_equal(grey.ravel(), list(GREY))
    colours = np.asarray(open_image(tiff(2, [COLOURS])))
    np.testing.assert_array_equal(colours.ravel(), list(COLOURS))
    old = np.asarray(open_image(tiff(1, [GREY], 2, tag279=[0, 0])))  # sizes that nobody wrote
    np.testing.assert_array_equal(old.ravel(), list(GREY))
    apart = [COLOURS[channel::3] for channel in range(3)]
    np.testing.assert_array_equal(np.asarray(open_image(tiff(2, apart))), colours)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (tiff(1, [GREY, bytes([255]) * SIDE**2], tag338=[2]), "planes that are not read right"),
        (tiff(6, [COLOURS]), "uncompressed YCbCr"),
        (tiff(6, [COLOURS[channel::3] for channel in range(3)]), "uncompressed YCbCr"),
        (tiff(1, [GREY], 2, tag273=[200], tag279=[8]), "strips of it are missing"),
        (tiff(1, [GREY], 2, tag273=[134, 0]), "strips of it are missing"),
        (tiff(2, [bytes(4 * SIDE**2)]), "a number more a pixel, of which it does not say"),
        (tiff(1, [GREY]).replace(struct.pack("<HH", 262, 4), struct.pack("<HH", 263, 4)), "mean"),
    ],
    ids=[
        *("grey and alpha", "YCbCr", "YCbCr apart", "one strip of two", "no place"),
        *("a fourth number", "no meaning"),
    ],
)
def test_a_tiff_that_is_not_read_right_is_refused(content, why):
    with pytest.raises(BadPicture, match=why):
        open_image(content)


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4", "tiff_raw_16"])
def test_a_fax_is_refused_also_where_it_is_whole(compression):
    """libtiff says nothing where one breaks off; of group 4 the rest is what memory held."""
    dots = Image.fromarray(np.random.default_rng(0).random((64, 64)) > 0.5)
    with pytest.raises(BadPicture, match="compressed as a fax"):
        open_image(encoded(dots, "TIFF", compression=compression))


def test_compressed_pixels_do_not_lie_where_the_file_begins():
    grey = Image.frombytes("L", (SIDE, SIDE), GREY)
    content = encoded(grey, "TIFF", compression="packbits")
    np.testing.assert_array_equal(np.asarray(open_image(content)), np.asarray(grey))
    place = content.index(struct.pack("<HHI", 273, 4, 1)) + 8
    for wrong in (0, 7):
        at = struct.pack("<I", wrong)
        with pytest.raises(BadPicture, match="strips of it are missing"):
            open_image(content[:place] + at + content[place + 4 :])


@pytest.mark.parametrize("tag", [259, 273])
def test_a_tiff_that_says_twice_how_its_pixels_lie_is_refused(tag):
    """Pillow believes the last and libtiff the first."""
    content = encoded(Image.frombytes("L", (SIDE, SIDE), GREY), "TIFF", compression="packbits")
    other = content.index(struct.pack("<H", 278), 8)  # rows a strip, of which there is one
    twice = content[:other] + struct.pack("<H", tag) + content[other + 2 :]
    with pytest.raises(BadPicture, match="two answers to how its pixels lie"):
        open_image(twice)


def test_a_fourth_number_is_passed_over_where_the_tiff_says_that_it_is_none_or_all_are_opaque():
    """As OpenCV writes them, which says nothing."""
    pixels = np.frombuffer(COLOURS, np.uint8).reshape(-1, 3)
    more = np.concatenate([pixels, pixels[:, :1]], axis=1).tobytes()
    opaque = np.concatenate([pixels, np.full_like(pixels[:, :1], 255)], axis=1).tobytes()
    for content in (tiff(2, [more], tag338=[0]), tiff(2, [opaque])):
        seen = np.asarray(open_image(content))
        np.testing.assert_array_equal(seen.reshape(-1, 3), pixels)


def test_tiles_are_of_the_size_of_a_picture_at_most():
    """All of a tile is decoded, of however few pixels."""
    tiled = {"tag322": [2**14], "tag323": [2**13], "tag324": [8], "tag325": [100]}
    with pytest.raises(BadPicture, match="of tiles of more than 67,108,864 pixels"):
        open_image(tiff(1, [GREY], **tiled, tag259=[8]))
    many = tiled | {"tag323": [2**12], "tag324": [8] * 17, "tag325": [100] * 17}
    with pytest.raises(BadPicture, match="of more than 1,073,741,824 pixels in all its strips"):
        open_image(tiff(1, [GREY], **many, tag259=[8]))


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


def png(colour: int, *chunks: bytes) -> bytes:
    """4 × 4 pixels of 8 bits, which are 0 to 15."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


ROWS = zlib.compress(b"".join(b"\0" + bytes(range(at, at + SIDE)) for at in range(0, 16, SIDE)))
PIXELS, PALETTE = chunk(b"IDAT", ROWS), chunk(b"PLTE", bytes(range(48)))
CLEAR, CLEAR_GREY = chunk(b"tRNS", bytes(4)), chunk(b"tRNS", b"\0\3")


def test_pngs_of_which_others_show_other_colours_are_refused():
    assert np.asarray(open_image(png(3, PALETTE, PIXELS)))[0, 1].tolist() == [3, 4, 5]
    assert np.asarray(open_image(png(3, PALETTE, CLEAR, PIXELS)))[0, 1].tolist() == [255] * 3
    assert np.asarray(open_image(png(0, CLEAR_GREY, PIXELS)))[0].tolist() == [0, 1, 2, 255]
    for why, content in (
        ("transparency", png(3, CLEAR, PALETTE, PIXELS)),
        ("transparency", png(0, PIXELS, CLEAR_GREY)),
        ("transparency", png(0, chunk(b"tRNS", b"\1\3"), PIXELS)),
        ("transparency", png(0, CLEAR_GREY, CLEAR_GREY, PIXELS)),
        ("palette", png(3, chunk(b"PLTE", bytes(47)), PIXELS)),
        ("palette that is damaged", png(3, PALETTE, PALETTE, PIXELS)),
        ("colours that its palette lacks", png(3, chunk(b"PLTE", bytes(45)), PIXELS)),
    ):
        with pytest.raises(BadPicture, match=why):
            open_image(content)


def test_a_jpeg_2000_that_lacks_tiles_is_refused():
    file = io.BytesIO()
    Image.fromarray(np.arange(64**2, dtype=np.uint32).reshape(64, 64).astype(np.uint8)).save(
        file, "JPEG2000", tile_size=(32, 32), no_jp2=True
    )
    whole = file.getvalue()
    open_image(whole)
    second = whole.index(b"\xff\x90\0\x0a\0\1")
    with pytest.raises(BadPicture, match="tiles of it are missing"):
        open_image(whole[:second] + b"\xff\xd9")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_planes_of_transparent_pictures_are_refused(compression):
    """Pillow reads the second plane as 0: all of it would be the white background."""
    image = Image.merge("LA", (Image.new("L", (8, 8), 90), Image.new("L", (8, 8), 255)))
    together = io.BytesIO()
    image.save(together, "TIFF", compression=compression)
    assert np.asarray(open_image(together.getvalue())).max() == 90
    planes = io.BytesIO()
    image.save(planes, "TIFF", compression=compression, tiffinfo={284: 2})
    with pytest.raises(BadPicture, match="planes that are not read right"):
        open_image(planes.getvalue())


def bmp(header: int, bits: int, compression: int, masks: list[int], pixels: bytes) -> bytes:
    size = struct.pack("<IiiHHIIiiII", header, 4, 1, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    head = (size + struct.pack(f"<{len(masks)}I", *masks)).ljust(header, b"\0")
    palette = b"".join(bytes([17 * n] * 3 + [0]) for n in range(16)) if bits == 4 else b""
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + head + palette + pixels


RED = struct.pack("<4H", *[0xFC00] * 4)  # opaque, of 5 bits a colour
MASKS = [0x7C00, 0x3E0, 0x1F, 0x8000]


def test_bmps_that_are_not_read_right_are_refused():
    plain = np.asarray(open_image(bmp(124, 16, 3, [*MASKS[:3], 0], RED)))
    assert (plain == [255, 0, 0]).all()
    assert (np.asarray(open_image(bmp(124, 16, 0, MASKS, RED))) == [255, 0, 0]).all()  # unused
    with pytest.raises(BadPicture, match="of 16 bits with transparency"):
        open_image(bmp(124, 16, 3, MASKS, RED))
    with pytest.raises(BadPicture, match="run lengths of 4 bits"):
        open_image(bmp(40, 4, 2, [], bytes.fromhex("0003123400000001")))


needs_jpeg2000 = pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow lacks OpenJPEG")


def with_box(content: bytes, box: bytes) -> bytes:
    """A JPEG 2000 with one more box in its header."""
    at = content.index(b"jp2h") - 4
    (length,) = struct.unpack(">I", content[at : at + 4])
    longer = struct.pack(">I", length + len(box)) + content[at + 4 : at + length] + box
    return content[:at] + longer + content[at + length :]


@needs_jpeg2000
@pytest.mark.parametrize("space", [1, 3, 11, 14])
def test_a_jpeg2000_of_other_colours_is_refused(space):
    content = encoded(Image.new("RGB", (16, 16), "#c86400"), "JPEG2000")
    open_image(content)
    own = struct.pack(">I4sBBBI", 15, b"colr", 1, 0, 0, 16)
    assert content.count(own) == 1
    with pytest.raises(BadPicture, match="a palette or colours that are not read right"):
        open_image(content.replace(own, own[:-4] + struct.pack(">I", space)))
    open_image(with_box(content, own[:-4] + struct.pack(">I", space)))  # the first one counts


@needs_jpeg2000
def test_a_jpeg2000_with_a_palette_or_strange_channels_is_refused():
    content = encoded(Image.new("L", (16, 16), 3), "JPEG2000")
    palette = struct.pack(">HB3B", 4, 3, 7, 7, 7) + bytes(12)
    mapped = struct.pack(">3HBB", 0, 1, 0, 0, 0)[:4]
    boxes = struct.pack(">I4s", 8 + len(palette), b"pclr") + palette
    boxes += struct.pack(">I4s", 8 + len(mapped), b"cmap") + mapped
    with pytest.raises(BadPicture, match="a palette or colours that are not read right"):
        open_image(with_box(content, boxes))
    both = encoded(Image.new("LA", (16, 16), (50, 128)), "JPEG2000")
    for kind in (2, 65535):  # premultiplied, and unspecified
        listed = struct.pack(">3H", 0, 0, 1) + struct.pack(">3H", 1, kind, 0)
        box = struct.pack(">I4sH", 10 + len(listed), b"cdef", 2) + listed
        plain = both.replace(b"cdef", b"free")  # a file has one of them
        with pytest.raises(BadPicture, match="in an order or of a kind that is not read right"):
            open_image(with_box(plain, box))


def test_threads_share_what_they_may_have():
    share, taken = Allowance(10), []
    with share.of(6), share.of(4):
        taken.append("both")
    with share.of(99):  # more than there is, alone
        taken.append("large")
    assert taken == ["both", "large"]


def test_a_thread_waits_for_its_share():
    share, order = Allowance(10), []

    def take() -> None:
        with share.of(5):
            order.append("second")

    thread = threading.Thread(target=take)
    with share.of(6):
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
