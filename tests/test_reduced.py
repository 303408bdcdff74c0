"""Large pictures are stored smaller, and networks see the same of them."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pipeline.data.images.crops import center_crop
from pipeline.data.images.opening import decode_image
from pipeline.prepare.datasets import open_source
from pipeline.prepare.reduced import TIMES, Reduced
from pipeline.runtime.errors import UserError

SIZE = 8  # of what networks see


def encoded(width: int, height: int, mode: str = "RGB", form: str = "PNG", **more) -> bytes:
    """A smooth picture with some detail."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / width * f) * np.cos(y / height * f) for f in (5, 9, 14)]
    pixels = (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)
    image = Image.fromarray(pixels if mode == "RGB" else pixels[..., 0])
    buffer = io.BytesIO()
    image.save(buffer, form, **more)
    return buffer.getvalue()


def reduced(content: bytes) -> bytes:
    source = SimpleNamespace(class_names=["a"], items=[], version="1", read=lambda index: content)
    return Reduced(source, SIZE).read(0)


@pytest.mark.parametrize("size", [(SIZE, SIZE), (TIMES * SIZE, 300), (300, TIMES * SIZE)])
def test_a_picture_that_is_small_on_one_side_is_stored_as_it_is(size):
    content = encoded(*size)
    assert reduced(content) is content


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(65, 65), (400, 300), (300, 1000), (1001, 333)])
def test_a_large_one_keeps_its_shape_and_what_networks_see_of_it(size, mode):
    content = encoded(*size, mode)
    small = Image.open(io.BytesIO(reduced(content)))
    assert min(small.size) == TIMES * SIZE and small.mode == mode
    assert small.width / small.height == pytest.approx(size[0] / size[1], rel=0.02)
    seen = [
        np.asarray(center_crop(decode_image(each, 3), SIZE)).astype(float)
        for each in (content, reduced(content))
    ]
    # Of 255. The middle lies between pixels of the smaller picture.
    assert np.abs(seen[0] - seen[1]).mean() <= 3


def test_a_photograph_that_was_turned_stays_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° to the right
    turned = decode_image(reduced(encoded(600, 300, form="JPEG", exif=exif)), 3)
    assert turned.size == (TIMES * SIZE, 2 * TIMES * SIZE)


@pytest.mark.parametrize(
    ("mode", "form"),
    [("P", "GIF"), ("LA", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("1", "PNG"), ("I;16", "PNG")],
)
def test_every_kind_of_large_picture_is_grey_or_rgb_then(mode, form):
    pixels = Image.open(io.BytesIO(encoded(300, 200, "L")))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(pixels).astype(np.uint16) * 257)
    else:
        picture = pixels.convert("RGB").convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, form)
    seen = [
        np.asarray(center_crop(decode_image(each, 1), SIZE)).astype(float)
        for each in (buffer.getvalue(), reduced(buffer.getvalue()))
    ]
    assert np.abs(seen[0] - seen[1]).mean() <= 3


def test_a_long_comment_is_left_out():
    content = encoded(300, 200, "L", form="GIF", comment=b"x" * 70_000)
    assert len(reduced(content)) < 20_000 < len(content)


def test_a_folder_is_opened_so_and_what_cannot_be_used_is_named(tmp_path):
    for name, width in {"cat": 300, "dog": 301}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "large.png").write_bytes(encoded(width, 200))
    source = open_source(f"folder:{tmp_path}", "nowhere", SIZE)
    assert min(Image.open(io.BytesIO(source.read(1))).size) == TIMES * SIZE
    assert source.class_names == ["cat", "dog"] and len(source.items) == 2
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((200, 300), np.float32)).save(buffer, "TIFF")
    items = [SimpleNamespace(key="train/0000007")]
    odd = SimpleNamespace(class_names=[], items=items, read=lambda index: buffer.getvalue())
    with pytest.raises(UserError, match=r"data\.source: train/0000007 is of numbers"):
        Reduced(odd, SIZE).read(0)


@pytest.mark.parametrize("size", [(60, 60), (40, 70), (90, 100)])
def test_a_file_of_many_bytes_is_stored_as_jpeg_of_its_own_size_or_smaller(monkeypatch, size):
    content = encoded(*size, form="BMP")
    monkeypatch.setattr("pipeline.prepare.reduced.LARGE", len(content) - 1)
    small = Image.open(io.BytesIO(reduced(content)))
    assert small.format == "JPEG" and min(small.size) == min(TIMES * SIZE, *size)
    low = encoded(*size, form="JPEG", quality=20)
    monkeypatch.setattr("pipeline.prepare.reduced.LARGE", 1)
    assert len(reduced(low)) <= len(low) or min(size) > TIMES * SIZE  # it would only grow
    monkeypatch.setattr("pipeline.prepare.reduced.LARGE", len(content))
    assert (reduced(content) is content) == (min(size) <= TIMES * SIZE)
