"""Files within the limit of bytes that would take minutes, or all memory, to open."""

import io
import re
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.data.images.opening import BadPicture, decode_image, open_image
from pipeline.prepare.datasets import open_source
from pipeline.runtime import limits
from pipeline.runtime.errors import UserError
from tests.images import noise_image

SECONDS = 5  # that a refusal may take on a busy machine; most of these took over 20
BASIC_TAGS = {256: (4, 40), 257: (4, 40), 258: (3, 8), 259: (3, 1), 262: (3, 1), 273: (4, 8)}
BASIC_TAGS |= {277: (3, 1), 278: (4, 40), 279: (4, 1600)}
GIF_HEAD = b"GIF89a" + struct.pack("<HH", 20, 20) + b"\x80\0\0\0\0\0\xff\xff\xff"
GIF_PIXELS = b",\0\0\0\0\x14\0\x14\0\0\2\2D\1\0;"


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def directory(tags: list[tuple[int, int, int, int]], data: bytes, order: str = "<") -> bytes:
    """A TIFF: its data from byte 8 on, and then tags (name, kind, values, value or place)."""
    entries = [
        struct.pack(order + ("HHIHH" if kind == 3 else "HHII"), name, kind, count, value, *more)
        for name, kind, count, value in sorted(tags)
        for more in [(0,) if kind == 3 else ()]
    ]
    start = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data))
    return start + data + struct.pack(order + "H", len(entries)) + b"".join(entries) + b"\0" * 4


def tiff(more: list[tuple[int, int, int, int]], data: bytes = b"\xff" * 1600, **changed) -> bytes:
    names = {"height": 257, "offsets": 273, "rows": 278}
    replaced = {names[name]: value for name, value in changed.items()}
    basic = [(name, *replaced.get(name, (kind, 1, v))) for name, (kind, v) in BASIC_TAGS.items()]
    return directory([*basic, *more], data)


def exif(count: int, size: int, kind: int = 7) -> bytes:
    """Turned by a quarter, and with tags whose values are the same bytes."""
    values = size // {7: 1, 4: 4, 5: 8}[kind]
    tags = [(10_000 + i, kind, values, 8) for i in range(count)]
    return directory([(274, 3, 1, 6), *tags], b"\1" * size)


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg(*segments: bytes) -> bytes:
    whole = encoded(noise_image(40, 40), "JPEG")
    return whole[:2] + b"".join(segments) + whole[2:]


def with_exif(block: bytes) -> bytes:
    parts = [block[i : i + 60_000] for i in range(0, len(block), 60_000)]
    return jpeg(*(segment(0xE1, b"Exif\0\0" + part) for part in parts))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + zlib.crc32(kind + content).to_bytes(4)


def png(*chunks: bytes) -> bytes:
    whole = encoded(noise_image(40, 40), "PNG")
    return whole[:33] + b"".join(chunks) + whole[33:]


def repeated_scans(side: int, times: int) -> bytes:
    whole = encoded(Image.new("L", (side, side)), "JPEG", progressive=True)
    last = whole.rfind(b"\xff\xda")
    return whole[:last] + whole[last:-2] * times + b"\xff\xd9"


def overlapping_strips() -> bytes:
    """Of all rows but one, again and again."""
    side, count = 2048, 1000
    places = struct.pack("<I", 8) * count
    rows, offsets = (4, 1, side - 1), (4, count, 8 + side * side)
    made = tiff([], b"\0" * side * side + places, rows=rows, offsets=offsets)
    for tag in (256, 257):
        made = made.replace(
            struct.pack("<HHII", tag, 4, 1, 40), struct.pack("<HHII", tag, 4, 1, side)
        )
    return made


def runs(count: int) -> bytes:
    """A BMP of run lengths, all of one pixel."""
    side = int(count**0.5)
    whole = encoded(Image.new("L", (side, side)), "BMP")
    return whole[:30] + struct.pack("<I", 1) + whole[34:1078] + b"\1\7" * count


COSTLY: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG, EXIF tags": (lambda: with_exif(exif(2000, 10_000)), "more than 512 tags"),
    "JPEG, EXIF bytes": (lambda: with_exif(exif(100, 10_000)), "share their bytes"),
    "JPEG, EXIF numbers": (lambda: with_exif(exif(1, 200_000) * 2), "bytes of EXIF data"),
    "JPEG, EXIF prefixes": (lambda: with_exif(b"Exif\0\0" * 100_000), "bytes of EXIF data"),
    "JPEG, MPF": (lambda: jpeg(segment(0xE2, b"MPF\0" + exif(300, 50_000, 4))), "share their"),
    "JPEG, empty segments": (lambda: jpeg(segment(0xE5, b"") * 100_000), "more than 512 segments"),
    "JPEG, padding": (lambda: jpeg(b"\xff" * 1_000_000), "too many small pieces"),
    "JPEG, junk": (lambda: jpeg(segment(0xE5, b""), b"a" * 1_000_000), "too many small pieces"),
    "JPEG, scans": (lambda: repeated_scans(2048, 400), "scans or more of 4,194,304 pixels"),
    "TIFF, tags": (lambda: tiff([(9000 + i, 7, 99, 8) for i in range(999)]), "more than 512 tags"),
    "TIFF, bytes": (lambda: tiff([(9000 + i, 7, 1600, 8) for i in range(9)]), "share their bytes"),
    "TIFF, EXIF inside": (lambda: tiff([(34665, 4, 1, 8)], b"\2\0" + struct.pack(
        "<HHII", 37500, 7, 1_900, 8) * 2 + b"\0" * 1_900), "share their bytes"),
    "TIFF, strips": (overlapping_strips, "pixels in all its strips"),
    "PNG, text chunks": (lambda: png(chunk(b"tEXt", b"") * 100_000), "too many small pieces"),
    "PNG, empty chunks of pixels": (
        lambda: png(chunk(b"IDAT", b"") * 600_000), "too many small pieces"),
    "GIF, a long comment": (
        lambda: GIF_HEAD + b"!\xfe" + (b"\xff" + b"c" * 255) * 10_000 + b"\0" + GIF_PIXELS,
        "long comments"),
    "GIF, comments": (lambda: GIF_HEAD + b"!\xfe\1c\0" * 50_000 + GIF_PIXELS, "long comments"),
    "PPM, comment": (lambda: b"P5 #" + b"c" * 10**6 + b"\n20 20 255\n" + b"\0" * 400, "comments"),
    "PPM, blanks": (lambda: b"P5" + b" " * 10**6 + b"20 20 255\n" + b"\0" * 400, "small pieces"),
    "PPM, scaled": (lambda: b"P5 1100 1100 99\n" + b"\0" * 1100**2, "too many small pieces"),
    "PPM, P1": (lambda: b"P1 2 2\n0 1 0 1\n", "PNM picture written as text"),
    "PPM, P2": (lambda: b"P2 2 2 255\n0 1 0 1\n", "PNM picture written as text"),
    "PPM, P3": (lambda: b"P3 2 1 255\n0 1 0 1 2 3\n", "PNM picture written as text"),
    "BMP, runs": (lambda: runs(600_000), "too many small pieces"),
    "JPEG 2000, boxes": (
        lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I4s", 8, b"free") * 100_000,
        "too many small pieces"),
}  # fmt: skip


@pytest.mark.parametrize("name", COSTLY)
def test_what_would_take_too_long_is_refused_soon(name):
    make, words = COSTLY[name]
    content = make()
    start = time.process_time()
    with pytest.raises(BadPicture, match=rf"{words}.*\(docs/limits.md\); save it anew"):
        open_image(content)
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_no_tag_is_read_but_the_orientation(kind):
    """Pillow copies the values of each tag: of these 2 GB, and turning wrote them anew."""
    block = exif(400, 5_000_000)
    image = noise_image(8, 16)
    content = encoded(image, kind, exif=block, **({"lossless": True} if kind == "WEBP" else {}))
    start = time.process_time()
    shown = open_image(content)
    assert time.process_time() - start < 1 and shown.size == (image.height, image.width)
    turned = image.transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(turned))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("how", ["JPEG", "PNG", "TIFF", "profile", "XMP in PNG", "XMP in JPEG"])
def test_a_picture_is_turned_whatever_says_so(how, order):
    image = Image.fromarray(np.repeat(np.uint8([[0, 255]]), 8, axis=0).repeat(8, axis=1))
    block = directory([(271, 2, 3, 0x414141), (274, 3, 1, 8)], b"", order)
    xmp = '<rdf:Description tiff:Orientation="8"/>'
    info = PngInfo()
    if how == "profile":
        info.add_text("Raw profile type exif", f"\nexif\n{len(block)}\n{block.hex()}", zip=True)
    elif how == "XMP in PNG":
        info.add_itxt("XML:com.adobe.xmp", xmp)
    if how == "TIFF":
        content = encoded(image, "TIFF", tiffinfo={274: 8})
    elif how == "XMP in JPEG":
        content = encoded(image, "JPEG", xmp=xmp.encode())
    else:
        options = {"exif": b"Exif\0\0" + block} if how in ("JPEG", "PNG") else {"pnginfo": info}
        content = encoded(image, "JPEG" if how == "JPEG" else "PNG", **options)
    shown = np.asarray(decode_image(content, 1))
    assert shown.shape == (16, 8) and shown[:8].mean() > 250 and shown[8:].mean() < 5


def test_what_real_files_have_is_read():
    profile, note = b"ICC_PROFILE\0\1\1" + b"p" * 65_000, b"http://ns.adobe.com/xap/1.0/\0"
    parts = [segment(0xE2, profile)] * 100 + [segment(0xE1, note + b"x" * 60_000)] * 100
    assert open_image(jpeg(*parts)).size == (40, 40)
    assert open_image(repeated_scans(400, 90)).size == (400, 400)
    assert open_image(png(chunk(b"tEXt", b"k\0v" * 1000) * 1000)).size == (40, 40)
    assert open_image(encoded(noise_image(20, 20), "GIF", comment=b"c" * 100_000)).size == (20, 20)
    assert open_image(b"P5 #" + b"c" * 8000 + b"\n20 20 9\n" + b"\0" * 400).size == (20, 20)
    rows = noise_image(40, 800, "L")
    assert open_image(encoded(rows, "TIFF", tiffinfo={278: 1})).size == rows.size


def test_signed_pixels_of_8_bits_are_refused():
    with pytest.raises(BadPicture, match="range is not known"):
        open_image(tiff([(339, 3, 1, 2)]))
    assert open_image(tiff([(339, 3, 1, 1)])).size == (40, 40)


def test_a_palette_that_is_missing_is_said_in_words():
    whole = encoded(noise_image(8, 8).convert("P"), "PNG")
    at = whole.index(b"PLTE") - 4
    (length,) = struct.unpack_from(">I", whole, at)
    with pytest.raises(BadPicture, match="palette is missing; replace"):
        open_image(whole[:at] + whole[at + 12 + length :])


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    noise_image(8, 8, seed=seed).save(path)


def folder(root: Path, contents: dict[str, list[int]]) -> str:
    for name, seeds in contents.items():
        for i, seed in enumerate(seeds):
            save(root / name / f"{i}.png", seed)
    return f"folder:{root}"


@pytest.mark.parametrize(
    "seeds",
    [
        {"cat": [1, 1, 1], "dog": [2, 2]},
        {"cat": [1, 2, 3, 1, 2, 3], "dog": [4, 5, 4, 5]},
        {"cat": [1, 2, 3], "dog": [1, 2, 3]},  # and which class is it?
    ],
    ids=["of one image", "of each image", "in the other class"],
)
def test_a_folder_of_copies_is_refused(seeds, tmp_path):
    source = folder(tmp_path, seeds)
    with pytest.raises(UserError, match=re.escape(str(tmp_path)) + ".*has a copy.*delete"):
        open_source(source, "nowhere", 8)


def test_copies_in_a_folder_without_splits_are_counted(tmp_path, capsys):
    open_source(folder(tmp_path, {"cat": [1, 2, 3], "dog": [3, 4, 5]}), "nowhere", 8)
    assert "2 of 6 images that were looked at have copies" in capsys.readouterr().out
    save(tmp_path / "dog" / "0.png", seed=9)
    open_source(f"folder:{tmp_path}", "nowhere", 8)
    assert not capsys.readouterr().out


def test_a_picture_with_the_most_pieces_is_still_quick():
    """What is read of a file within every limit, in the least time of three."""
    content = png(chunk(b"tEXt", b"k\0v") * (limits.PICTURE_HEAD_READS // 4))
    times = []
    for _ in range(3):
        start = time.process_time()
        open_image(content)
        times.append(time.process_time() - start)
    assert min(times) < 1
