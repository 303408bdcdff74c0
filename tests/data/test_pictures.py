"""Pictures as people have them: clean ones are stored, the others are refused in one line."""

import io
import os
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from pipeline.prepare import pictures
from pipeline.prepare.pictures import BadPicture, clean_picture, open_picture, stored_file
from pipeline.runtime import limits
from pipeline.runtime.errors import UserError
from tests.images import noise_image, png_of_size

SIDE = 64  # the largest shorter side of a stored picture
HEIF = "HEIF" in pictures.FORMATS


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def opened(tmp_path):
    """Opens the bytes of a file as a clean picture (H, W) or (H, W, 3) uint8."""

    def open_bytes(content: bytes) -> np.ndarray:
        (tmp_path / "picture").write_bytes(content)
        return np.asarray(open_picture(tmp_path / "picture"))

    return open_bytes


@pytest.fixture
def stored(tmp_path):
    """Stores the bytes of a file."""

    def store_bytes(content: bytes) -> bytes:
        (tmp_path / "picture").write_bytes(content)
        return stored_file(tmp_path / "picture", SIDE)

    return store_bytes


def decoded(content: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(content))
    assert image.format in ("JPEG", "PNG") and image.mode in ("L", "RGB")
    assert not image.has_transparency_data and not image.getexif()
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(stored, opened, kind, orientation):
    # Where the first row and the first column of the stored pixels are shown (EXIF 2.3).
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
    pixels = np.zeros((8, 16), np.uint8)  # bright at the top left only
    pixels[:4, :8] = 255
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "maker"
    content = encoded(Image.fromarray(pixels), kind, exif=exif)
    shown = opened(content).astype(int)
    shown = shown if shown.ndim == 2 else shown[..., 0]
    assert shown.shape == ((8, 16) if orientation < 5 else (16, 8))
    height, width = shown.shape
    rows = slice(0, height // 2) if "top" in (first_row, first_column) else slice(height // 2, None)
    left = "left" in (first_row, first_column)
    bright = np.zeros_like(shown)
    bright[rows, slice(0, width // 2) if left else slice(width // 2, None)] = 255
    assert np.abs(shown - bright).mean() < 20
    if orientation > 1:
        assert decoded(stored(content)).shape[:2] == shown.shape


def test_damaged_exif_data_are_ignored(opened):
    content = encoded(noise_image(8, 8), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert opened(content).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["PNG", "PPM"])
def test_sixteen_bits_are_scaled(opened, kind):
    values = np.linspace(0, 65535, 48).round().astype(np.uint16).reshape(6, 8)
    content = b"P5 8 6 65535\n" + values.astype(">u2").tobytes()
    if kind == "PNG":
        content = encoded(Image.fromarray(values), kind)
    assert np.abs(opened(content).astype(float) - values / 257).max() <= 0.51


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "I;16", "GIF", "WEBP"])
def test_transparent_pixels_are_white(stored, mode):
    """The left half is black and clear, the right half black and opaque."""
    clear, black = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8)
    clear[:, 4:] = 255
    kind = mode if mode in ("GIF", "WEBP") else "PNG"
    if mode in ("RGBA", "LA", "WEBP"):
        bands = ["L"] * (1 if mode == "LA" else 3)
        image = Image.merge("LA" if mode == "LA" else "RGBA", [
            *(Image.fromarray(black) for _ in bands), Image.fromarray(clear)
        ])  # fmt: skip
        content = encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    else:  # one value of the pixels is transparent: that of the left half
        black[:, 4:] = 1
        image = Image.fromarray(black.astype(np.uint16 if mode == "I;16" else np.uint8))
        if mode == "RGB":
            image = image.convert("RGB")
        elif mode in ("P", "GIF"):
            image = image.convert("P")
            image.putpalette([0] * 768)
        content = encoded(image, kind, transparency=(0, 0, 0) if mode == "RGB" else 0)
    shown = decoded(stored(content))
    assert (shown[:, :3] >= 250).all() and (shown[:, 5:] <= 5).all()


def test_half_transparent_pixels_are_mixed_with_white(opened):
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 128))
    np.testing.assert_allclose(opened(encoded(image, "PNG"))[0, 0], [227, 127, 127], atol=1)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_numbers_without_a_known_range_are_refused(mode):
    with pytest.raises(BadPicture, match="range"):
        clean_picture(Image.new(mode, (8, 8)))


def test_the_first_frame_of_several_is_taken(opened):
    frames = [Image.new("L", (8, 8), level) for level in (40, 200)]
    for kind in ("GIF", "WEBP", "PNG"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert abs(int(opened(content).mean()) - 40) <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_clean_picture_keeps_its_bytes(stored, kind, mode):
    for size in ((8, 8), (SIDE, 300)):
        content = encoded(noise_image(*size, mode), kind)
        assert stored(content) == content


@pytest.mark.parametrize(
    ("mode", "kind", "becomes"),
    [
        ("P", "PNG", "PNG"),
        ("P", "GIF", "PNG"),
        ("1", "PNG", "PNG"),
        ("RGB", "BMP", "PNG"),
        ("L", "PPM", "PNG"),
        ("RGB", "WEBP", "JPEG"),
        ("CMYK", "JPEG", "JPEG"),
    ],
)
def test_other_pictures_are_stored_as_png_or_jpeg(stored, mode, kind, becomes):
    image = Image.linear_gradient("L").resize((40, 30)).convert("RGB").convert(mode)
    content = stored(encoded(image, kind))
    assert Image.open(io.BytesIO(content)).format == becomes
    shown, wanted = decoded(content), np.asarray(image.convert("RGB")).astype(int)
    shown = shown if shown.ndim == 3 else shown[..., None]
    assert np.abs(shown - wanted).max() <= (0 if becomes == "PNG" else 10)


@pytest.mark.parametrize("size", [(65, 65), (400, 300), (300, 1000)])
def test_a_large_picture_is_stored_smaller(stored, size):
    image = Image.linear_gradient("L").resize(size)
    content = stored(encoded(image, "PNG"))
    small = Image.open(io.BytesIO(content))
    assert small.format == "JPEG" and min(small.size) == SIDE
    assert small.width / small.height == pytest.approx(size[0] / size[1], rel=0.02)
    wanted = np.asarray(image.resize(small.size)).astype(int)
    assert np.abs(np.asarray(small) - wanted).mean() <= 3


def test_a_file_of_many_bytes_is_compressed_again(stored, monkeypatch):
    content = encoded(noise_image(60, 60), "PNG")
    monkeypatch.setattr(pictures, "LARGE", len(content) - 1)
    small = Image.open(io.BytesIO(stored(content)))
    assert small.format == "JPEG" and small.size == (60, 60)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not a picture"),
        (b"no picture at all\n" * 100, "not a picture"),
        (encoded(noise_image(8, 8), "TIFF"), "not a picture"),
        (encoded(noise_image(8, 8), "EPS"), "not a picture"),  # Pillow would run Ghostscript
        (encoded(noise_image(8, 8), "ICO"), "not a picture"),
        (b"Pf\n8 8\n-1.0\n" + bytes(256), "range"),
        (png_of_size(8192, 8193), "67,108,864"),
        (png_of_size(30_000, 30_000), "67,108,864"),
        (png_of_size(999, 20_000), "20 times"),
        *((encoded(noise_image(40, 40), k)[:-400], "damaged") for k in ("PNG", "JPEG", "BMP")),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, content, word):
    path = tmp_path / "x\n.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=word) as error:
        stored_file(path, SIDE)
    assert error.value.subject == str(path) and error.value.way_out
    assert str(error.value).isprintable()


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "sparse", "missing", "link"])
def test_only_regular_files_are_read(tmp_path, ends, what):
    path = tmp_path / "picture.png"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "sparse":
        path.touch()
        os.truncate(path, 2**40)
    elif what != "missing":
        path.symlink_to("/dev/zero" if what == "device" else tmp_path / "nothing")
    with pytest.raises(UserError) as error:
        open_picture(path)
    assert error.value.subject == str(path)


@pytest.mark.skipif(HEIF, reason="the extra heif is installed")
def test_heic_names_the_extra(opened):
    with pytest.raises(UserError) as error:
        opened(b"\0\0\0\x18ftypheic" + bytes(100))
    assert "pillow-heif" in error.value.way_out


@pytest.mark.skipif(not HEIF, reason="needs the extra heif")
def test_heic_is_stored_as_jpeg(stored):
    content = encoded(Image.linear_gradient("L").convert("RGB").resize((320, 240)), "HEIF")
    assert min(decoded(stored(content)).shape[:2]) == SIDE


def fuzzed(random: random.Random) -> tuple[str, bytes, bool]:
    """A picture of a random format and mode, whole or damaged: format, bytes, whether whole."""
    kind = random.choice(sorted(limits.PICTURE_FORMATS))
    modes = ["L", "RGB"] if kind in ("JPEG", "WEBP", "PPM") else ["L", "RGB", "P", "1"]
    size = random.randint(8, 40), random.randint(8, 40)
    image = noise_image(*size, "RGB", seed=random.randrange(10**6)).convert(random.choice(modes))
    content = bytearray(encoded(image, kind))
    damage = random.choice(["none", "flip", "flip", "cut", "head", "insert"])
    if damage == "flip":
        for _ in range(random.randint(1, 5)):
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    elif damage == "cut":
        del content[random.randrange(len(content)) :]
    elif damage == "head":
        content[random.randrange(min(30, len(content)))] ^= 1 << random.randrange(8)
    elif damage == "insert":
        place = random.randrange(len(content))
        content[place:place] = random.randbytes(random.randint(1, 50))
    return kind, bytes(content), damage == "none"


def as_torchvision_reads(kind: str, content: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8; None if torchvision does not read it."""
    if kind not in ("JPEG", "PNG", "GIF", "WEBP"):
        return None
    try:
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        image = decode_image(data, ImageReadMode.RGB)
    except RuntimeError:
        return None
    return (image[0] if image.ndim == 4 else image).permute(1, 2, 0).numpy()


def test_200_odd_files_are_refused_or_read_as_torchvision_reads_them(tmp_path):
    draw, path = random.Random(0), tmp_path / "picture"
    refused = compared = 0
    for _ in range(200):
        kind, content, whole = fuzzed(draw)
        path.write_bytes(content)
        try:
            shown = np.asarray(Image.open(io.BytesIO(stored_file(path, SIDE))).convert("RGB"))
        except UserError as error:
            assert error.subject == str(path) and str(error).isprintable() and not whole
            refused += 1
            continue
        if (other := as_torchvision_reads(kind, content)) is not None:
            assert shown.shape == other.shape, kind
            difference = np.abs(shown.astype(int) - other)
            if kind == "GIF":  # torchvision reads any memory for a number beyond the palette
                assert (difference.sum(axis=2) > 0).mean() < 0.01
            else:
                lossy = {"WEBP": 12, "JPEG": 1}.get(kind, 0)  # a WebP is stored as JPEG
                assert difference.mean() <= lossy, kind
            compared += 1
    assert refused >= 50 and compared >= 50
