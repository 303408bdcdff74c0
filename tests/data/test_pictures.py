"""Pictures of every kind: valid ones are stored, broken ones are refused in one line."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from pipeline.data.images.pixels import decode_image
from pipeline.prepare import pictures
from pipeline.prepare.pictures import stored_file
from pipeline.runtime import limits
from pipeline.runtime.errors import UserError
from tests.errors import refused
from tests.images import noise_image, png_of_size

SIDE = 96  # the largest shorter side of a stored picture
CUT = ("PNG", "JPEG", "BMP", "PPM")
HEIF = "HEIF" in pictures.FORMATS


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "picture\n.png"


@pytest.fixture
def stored(path):
    """Store the bytes of a picture file."""

    def store_bytes(content: bytes) -> bytes:
        path.write_bytes(content)
        return stored_file(path, SIDE)

    return store_bytes


@pytest.fixture
def shown(stored):
    """Return the pixels (H, W, 3) that training reads from a file's bytes."""

    def show(content: bytes) -> np.ndarray:
        kept = stored(content)
        plain = Image.open(io.BytesIO(kept), formats=("PNG", "JPEG", "PPM"))
        assert plain.mode in ("L", "RGB") and not plain.has_transparency_data
        assert not plain.getexif()
        read = decode_image(kept, channels=3)
        assert read.mode == "RGB" and read.tobytes() == plain.convert("RGB").tobytes()
        return np.asarray(read).astype(int)

    return show


# How people see stored pixels (H, W), by their EXIF orientation.
UPRIGHT = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(shown, orientation):
    pixels = np.zeros((8, 16), np.uint8)  # bright at the top left only
    pixels[:4, :8] = 255
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "maker"
    wanted = UPRIGHT[orientation](pixels.astype(int))
    for kind in ("JPEG", "PNG", "WEBP", *(["HEIF"] if HEIF else [])):
        seen = shown(encoded(Image.fromarray(pixels), kind, exif=exif.tobytes()))[..., 0]
        assert seen.shape == wanted.shape and np.abs(seen - wanted).mean() < 20


def test_damaged_exif_data_are_ignored(shown):
    content = encoded(noise_image(8, 8), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert shown(content).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["PNG", "PPM"])
def test_sixteen_bits_are_scaled(shown, kind):
    values = np.linspace(0, 65535, 48).round().astype(np.uint16).reshape(6, 8)
    content = b"P5 8 6 65535\n" + values.astype(">u2").tobytes()
    if kind == "PNG":
        content = encoded(Image.fromarray(values), kind)
    assert np.abs(shown(content)[..., 1] - values / 257).max() <= 0.51


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *((mode, "PNG") for mode in ("RGBA", "LA", "P", "RGB", "L")),
        *(("P", "GIF"), ("RGBA", "WEBP")),
    ],
)
def test_transparent_pixels_are_white(shown, mode, kind):
    """The left half is black and transparent, the right half nearly black and opaque."""
    values, options = np.array([[0] * 4 + [1] * 4] * 6, np.uint8), {"lossless": True}
    image = Image.fromarray(values).convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(255 * values))
    else:
        options["transparency"] = (0, 0, 0) if mode == "RGB" else 0
    seen = shown(encoded(image, kind, **options))
    assert (seen[:, :3] >= 250).all() and (seen[:, 5:] <= 5).all()


def test_half_transparent_pixels_are_mixed_with_white(shown):
    content = encoded(Image.new("RGBA", (4, 4), (200, 0, 0, 128)), "PNG")
    np.testing.assert_allclose(shown(content)[0, 0], [227, 127, 127], atol=1)


def test_the_first_frame_of_several_is_taken(shown):
    frames = [Image.new("L", (8, 8), level) for level in (40, 200)]
    for kind in ("GIF", "WEBP", "PNG"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert abs(int(shown(content).mean()) - 40) <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_clean_picture_keeps_its_bytes_or_if_it_is_tiny_its_pixels(stored, shown, kind, mode):
    for size in ((8, 65), (SIDE, 300)):
        content = encoded(noise_image(*size, mode), kind)
        assert stored(content) == content
    content = encoded(noise_image(64, 30, mode), kind)
    assert stored(content).startswith(b"P5" if mode == "L" else b"P6")
    assert (shown(content) == np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))).all()
    grey = decode_image(stored(content), channels=1)
    assert grey.tobytes() == Image.open(io.BytesIO(content)).convert("L").tobytes()


LOSSLESS = [("P", "PNG"), ("P", "GIF"), ("1", "PNG"), ("RGB", "BMP"), ("L", "PPM")]


@pytest.mark.parametrize(("mode", "kind"), [*LOSSLESS, ("RGB", "WEBP"), ("CMYK", "JPEG")])
def test_other_pictures_are_stored_as_png_or_jpeg(stored, shown, mode, kind):
    image = Image.linear_gradient("L").resize((80, 30)).convert("RGB").convert(mode)
    content, exact = encoded(image, kind), (mode, kind) in LOSSLESS
    assert Image.open(io.BytesIO(stored(content))).format == ("PNG" if exact else "JPEG")
    wanted = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(shown(content) - wanted).max() <= (0 if exact else 10)


@pytest.mark.parametrize("size", [(97, 97), (192, 192), (400, 300), (300, 1000)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", *(["HEIF"] if HEIF else [])])
def test_a_large_picture_is_stored_smaller(stored, kind, size):
    image = Image.linear_gradient("L").resize(size)
    small = Image.open(io.BytesIO(stored(encoded(image.convert("RGB"), kind))))
    assert small.format == "JPEG" and min(small.size) == SIDE
    assert small.width / small.height == pytest.approx(size[0] / size[1], rel=0.02)
    wanted = np.asarray(image.resize(small.size)).astype(int)
    assert np.abs(np.asarray(small.convert("L")) - wanted).mean() <= 3


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not a picture"),
        (b"no picture at all\n" * 100, "not a picture"),
        (encoded(noise_image(8, 8), "TIFF"), "not a picture"),
        (encoded(noise_image(8, 8), "EPS"), "not a picture"),  # Pillow would run Ghostscript
        (b"Pf\n8 8\n-1.0\n" + bytes(256), "range"),
        (png_of_size(8192, 8193), "67,108,864"),
        (png_of_size(30_000, 30_000), "pixels"),
        (png_of_size(999, 20_000), "20 times"),
        *((encoded(noise_image(40, 40), kind)[:-400], "damaged") for kind in CUT),
    ],
)
def test_what_cannot_be_used_is_refused(stored, path, content, word):
    with refused(path, match=word):
        stored(content)


def test_heic_names_the_extra(stored, monkeypatch):
    monkeypatch.setattr(pictures, "FORMATS", limits.PICTURE_FORMATS)  # as without the extra
    with refused(way_out="pillow-heif"):
        stored(b"\0\0\0\x18ftypheic" + bytes(100))


def broken_file(draw: random.Random, kind: str) -> tuple[bytes, bytes]:
    """Draw a picture file and a damaged copy: usually one bit is flipped; else bytes are zeroed,
    removed or cut off."""
    picture = noise_image(5, 7, seed=draw.randrange(99)).convert(draw.choice(["L", "RGB"]))
    picture = picture.resize((draw.randrange(20, 64), draw.randrange(20, 64)))
    content = bytearray(whole := encoded(picture, kind))
    at, count = draw.randrange(len(content) if draw.random() < 0.7 else 60), draw.randrange(20)
    way = draw.choice(["flip", "clear", "leave out", "cut", "none"])
    if way == "flip":
        content[at] ^= 1 << draw.randrange(8)
    elif way == "clear":
        content[at : at + count] = bytes(len(content[at : at + count]))
    elif way != "none":
        del content[at : None if way == "cut" else at + count]
    return whole, bytes(content)


def as_torchvision_reads(content: bytes) -> np.ndarray:
    """Return the pixels (H, W, C) of a file."""
    bytes_in = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    frames = torchvision.io.decode_image(bytes_in, torchvision.io.ImageReadMode.RGB)
    return frames.view(-1, *frames.shape[-3:])[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("kind", sorted(limits.PICTURE_FORMATS))
def test_a_broken_file_is_refused_in_one_line_or_read_as_others_read_it(shown, path, kind):
    """BMP and PPM have no checksums, and torchvision does not read them."""
    draw, refused = random.Random(kind), 0
    for _ in range(34):  # 204 files in all
        whole, content = broken_file(draw, kind)
        try:
            seen = shown(content)
        except UserError as error:
            assert error.subject == str(path) and str(error).isprintable()
            refused += 1
            continue
        if kind not in ("BMP", "PPM"):
            try:
                wanted = as_torchvision_reads(content)
            except RuntimeError:  # too little is damaged to matter
                wanted = as_torchvision_reads(whole)
            np.testing.assert_allclose(seen, np.broadcast_to(wanted, seen.shape), atol=1)
    assert 5 <= refused < 34
