"""The page of `maskgit demo` shows what the Python API draws."""

import io
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import MaskGIT
from pipeline.data.images.pixels import grid_picture
from pipeline.runtime.errors import UserError
from pipeline.tools import demo
from pipeline.tools.ports import free_port
from tests.command_line import maskgit
from tests.tiny_project import SIDE, validation

pytest.importorskip("gradio")
page = pytest.importorskip("pipeline.tools.demo_page")


def on_canvas(picture: Image.Image, top: int = 0) -> Image.Image:
    """A picture as the editor returns it: on a square canvas that is transparent elsewhere."""
    side = max(picture.size)
    canvas = Image.new("RGBA", (side, side))
    canvas.paste(picture.convert("RGBA"), (0, top))
    return canvas


def strokes(side: int, *boxes: tuple[int, int, int, int]) -> Image.Image:
    layer = Image.new("RGBA", (side, side))
    for box in boxes:
        layer.paste("orange", box)
    return layer


def test_the_canvas_fills_until_it_is_the_samples_of_the_same_seed(model):
    settings = {"iterations": 4, "schedule": "linear", "temperature": 1.0}
    shown = list(page.canvases(model, "class1", 7, 3, **settings))
    assert len(shown) == 1 + 4
    blank = grid_picture(torch.full((7, 1, SIDE, SIDE), 128, dtype=torch.uint8), 5)
    assert shown[0] == blank
    assert shown[-1] == grid_picture(model.sample("class1", 7, seed=3, **settings), 5)


def test_what_was_drawn_over_is_filled(model, project, monkeypatch):
    """An enlarged example is edited at its original size; a wide picture, without the canvas."""
    monkeypatch.chdir(project)
    images = validation(1)[0]
    large = page.enlarged(MaskGIT.to_pil(images)[0])
    layers = [strokes(640, (160, 160, 320, 480)), strokes(640, (400, 400, 480, 480))]
    row = page.fillings(model, on_canvas(large), layers, "class2", 5, iterations=2)
    hole = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    hole[2:6, 2:4] = hole[5, 5] = True
    images = images.repeat(4, 1, 1, 1)
    filled = model.inpaint(images, "class2", mask=hole, seed=5, iterations=2)
    assert large.size == (640, 640) and row == grid_picture(filled, 4)
    wide = Image.effect_noise((96, 48), 80)
    row = page.fillings(model, on_canvas(wide, 24), [strokes(96, (40, 40, 60, 50))], "class0", 0)
    hole = np.zeros((48, 96), bool)
    hole[16:26, 40:60] = True
    assert row == grid_picture(model.inpaint([wide] * 4, "class0", mask=hole, seed=0), 4)
    empty, drawn = Image.new("RGBA", (8, 8)), strokes(8, (0, 0, 8, 8))
    for given, layer in ((None, drawn), (empty, drawn), (on_canvas(wide), strokes(96))):
        with pytest.raises(UserError):
            page.fillings(model, given, [layer], "class0", 0)


def test_without_gradio_the_line_names_what_to_install(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    done = maskgit("demo", capsys=capsys)
    assert done.code == 1 and done.out == "" and "maskgit-pipeline[demo]" in done.err


def test_uploads_of_other_formats_are_not_opened(monkeypatch):
    Image.init()
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    demo.guard_uploads()
    opened = []
    for name in ("PNG", "JPEG", "WEBP", "EPS", "ICO", "TGA"):
        file = io.BytesIO()
        Image.new("RGB", (16, 16)).save(file, name)
        try:
            opened.append(Image.open(file).format)
        except Image.UnidentifiedImageError:
            continue
    assert opened == ["PNG", "JPEG", "WEBP"]


def test_a_port_is_the_one_wanted_or_a_free_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", None, port) not in (0, port)
        with pytest.raises(UserError):
            free_port("127.0.0.1", port, 1)
    assert free_port("127.0.0.1", port, 1) == port
    for host in ("203.0.113.1", ""):
        with pytest.raises(UserError):
            free_port(host, None, 0)
