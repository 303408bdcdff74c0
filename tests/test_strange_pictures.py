"""Pictures that people really have, and some that nobody should have."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from pipeline.data.images.opening import BadPicture, decode_image, open_image
from pipeline.runtime import limits
from tests.images import noise_image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def arrow() -> Image.Image:
    """Wider than high, and bright at the top left only: any turn of it is another picture."""
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:4, :8] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    # Where the first row and the first column of the stored pixels lie when it is shown (EXIF 2.3).
    first_row, first_column = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = np.asarray(decode_image(encoded(arrow(), kind, exif=exif), 1)).astype(int)
    assert shown.shape == ((8, 16) if orientation < 5 else (16, 8))
    height, width = shown.shape
    rows = slice(0, height // 2) if "top" in (first_row, first_column) else slice(height // 2, None)
    columns = (
        slice(0, width // 2) if "left" in (first_row, first_column) else slice(width // 2, None)
    )
    bright = np.zeros_like(shown)
    bright[rows, columns] = 255
    assert np.abs(shown - bright).mean() < 20


@pytest.mark.parametrize("bits", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bits_are_scaled(bits):
    values = np.linspace(0, 65535, 48).round().astype(np.uint16).reshape(6, 8)
    if bits == "JPEG2000" and not features.check("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    if bits == "PPM":
        content = b"P5 8 6 65535\n" + values.astype(">u2").tobytes()
    else:
        content = encoded(Image.fromarray(values), bits)
    shown = np.asarray(decode_image(content, 1)).astype(float)
    assert np.abs(shown - values / 257).max() <= 0.51


@pytest.mark.parametrize(
    "pixels",
    [
        np.arange(48, dtype=np.int32).reshape(6, 8) * 1000,
        np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8),
        np.linspace(0, 255, 48, dtype=np.float32).reshape(6, 8),
    ],
    ids=["int32", "float", "large float"],
)
def test_numbers_without_a_known_range_are_refused(pixels):
    with pytest.raises(BadPicture, match=r"range is not known.*convert it to 8 or 16 bits"):
        open_image(encoded(Image.fromarray(pixels), "TIFF"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "I;16", "GIF"])
def test_transparent_pixels_show_the_background(mode, channels):
    """The left half is black and clear, the right one black and opaque."""
    clear = np.zeros((6, 8), np.uint8)
    clear[:, 4:] = 255
    black = np.zeros((6, 8), np.uint8)
    if mode in ("RGBA", "LA"):
        image = Image.merge(
            mode, [*[Image.fromarray(black)] * (len(mode) - 1), Image.fromarray(clear)]
        )
        content = encoded(image, "PNG")
    else:  # one value of the pixels is transparent: that of the left half
        black[:, 4:] = 1
        if mode == "RGB":
            content = encoded(Image.fromarray(black).convert("RGB"), "PNG", transparency=(0, 0, 0))
        elif mode == "I;16":
            content = encoded(Image.fromarray(black.astype(np.uint16)), "PNG", transparency=0)
        else:
            image = Image.fromarray(black)
            if mode in ("P", "GIF"):
                image = image.convert("P")
                image.putpalette([0] * 768)
            content = encoded(image, "GIF" if mode == "GIF" else "PNG", transparency=0)
    shown = np.asarray(decode_image(content, channels))
    assert (shown[:, :4] == 255).all() and (shown[:, 4:] <= 1).all()


def test_half_transparent_pixels_are_mixed_with_the_background():
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 128))
    shown = np.asarray(decode_image(encoded(image, "PNG"), 3))[0, 0]
    np.testing.assert_allclose(shown, [227, 127, 127], atol=1)


def png_of_size(width: int, height: int) -> bytes:
    """The beginning of a PNG, which promises a size and holds no pixel."""
    header = width.to_bytes(4) + height.to_bytes(4) + b"\x08\0\0\0\0"
    chunk = b"IHDR" + header
    crc = zlib.crc32(chunk).to_bytes(4)
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + chunk + crc + b"\0\0\0\0IEND\xaeB`\x82"


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((1, 20_000), "20 times as long"),
        ((20_000, 999), "20 times as long"),
        ((16_384, 10_860), "more than the limit of 67,108,864"),
        ((30_000, 30_000), "30000×30000 pixels, more than the limit of 67,108,864"),  # Pillow's too
        ((2**31 - 1, 2**31 - 1), "2147483647×2147483647 pixels, more than the limit"),
    ],
)
def test_absurd_sizes_are_refused_before_they_are_decoded(size, words):
    with pytest.raises(BadPicture, match=words):
        open_image(png_of_size(*size))


@pytest.mark.parametrize(("kind", "place"), [("BMP", 18), ("GIF", 6)])
def test_sizes_that_pillow_refuses_itself_are_told_as_the_others(kind, place):
    content = bytearray(encoded(noise_image(8, 8), kind))
    width = 4 if kind == "BMP" else 2
    content[place : place + 2 * width] = (60_000).to_bytes(width, "little") * 2
    with pytest.raises(BadPicture, match="60000×60000 pixels, more than the limit of 67,108,864"):
        open_image(bytes(content))


def test_a_frame_that_is_larger_than_its_picture_is_refused():
    content = bytearray(encoded(noise_image(8, 8), "GIF"))
    place = content.index(b"\x2c\0\0\0\0\x08\0\x08\0")
    content[place + 5 : place + 9] = (60_000).to_bytes(2, "little") * 2
    with pytest.raises(BadPicture, match="a frame of more than 67,108,864 pixels"):
        open_image(bytes(content))


def test_the_largest_size_that_is_read_and_the_next():
    side = int(limits.PICTURE_PIXELS**0.5)
    assert open_image(encoded(Image.new("1", (20, 400)), "PNG")).size == (20, 400)
    with pytest.raises(BadPicture, match="more than 20 times"):
        open_image(encoded(Image.new("1", (20, 401)), "PNG"))
    with pytest.raises(BadPicture, match="truncated"):  # and not for its size
        open_image(png_of_size(side, side))
    with pytest.raises(BadPicture, match="limit"):
        open_image(png_of_size(side, side + 1))


def test_a_format_that_starts_a_program_is_not_opened(tmp_path, monkeypatch):
    """Pillow opens EPS by its content, whatever the name, and runs Ghostscript on it."""
    ran = tmp_path / "ran"
    script = tmp_path / "gs"
    script.write_text(f"#!/bin/sh\ntouch {ran}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    content = encoded(noise_image(8, 8), "EPS")
    with pytest.raises(BadPicture, match="not an image of BMP, GIF"):
        open_image(content)
    assert not ran.exists()
    with pytest.raises(OSError), Image.open(io.BytesIO(content)) as image:
        image.load()
    assert ran.exists()  # without the list of formats it does


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "SGI", "DDS", "PDF"])
def test_other_formats_are_refused(kind):
    with pytest.raises(BadPicture, match="convert or delete it"):
        open_image(encoded(noise_image(8, 8), kind))


def test_a_damaged_picture_is_told_in_one_place(caplog):
    """Pillow logs what is wrong beside its error, which would be a second line."""
    content = bytearray(encoded(noise_image(8, 8), "TIFF"))
    entry = content.index(struct.pack("<HHI", 277, 3, 1))  # SamplesPerPixel
    content[entry + 8 : entry + 10] = struct.pack("<H", 217)
    with pytest.raises(BadPicture, match="truncated or not an image"):
        open_image(bytes(content))
    assert not caplog.records


def test_a_picture_that_is_whole_although_its_exif_data_are_not():
    content = encoded(noise_image(8, 8), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert open_image(content).size == (8, 8)


def test_a_picture_of_several_frames_is_its_first(tmp_path: Path):
    frames = [Image.new("L", (8, 8), level) for level in (40, 200)]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert abs(int(np.asarray(decode_image(content, 1)).mean()) - 40) <= 2


@pytest.mark.parametrize("clear", [b"", b"\x80\0\x10\0\0\0", b"\0\xff\0\0\0\0"])
def test_colours_of_16_bits_are_refused_where_one_is_transparent(clear):
    """Pillow compares the colour with what it has made 8 bits of."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    rows = b"".join(b"\0" + b"\x80\0\x10\0\0\0" * 8 for _ in range(8))
    head = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"tRNS", clear) if clear else b""]
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    if clear:
        with pytest.raises(BadPicture, match="one of which is transparent; convert it to 8 bits"):
            open_image(content)
    else:
        assert (np.asarray(open_image(content)) == (128, 16, 0)).all()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="libtiff is found on Linux")
@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "tiff_lzw", "jpeg"])
def test_a_damaged_tiff_is_an_error_and_no_word_of_a_library(capfd, compression):
    content = bytearray(encoded(noise_image(20, 20, "L"), "TIFF", compression=compression))
    with Image.open(io.BytesIO(content)) as picture:
        start = picture.tag_v2[273][0]
    content[start : start + 64] = b"\x55junk!!!" * 8
    with pytest.raises(BadPicture, match="truncated or not an image"):
        open_image(bytes(content))
    assert capfd.readouterr().err == ""
