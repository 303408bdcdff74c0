"""`maskgit demo`: what its page shows is what the Python API draws."""

import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import MaskGIT
from pipeline.data.image_grid import grid_picture
from pipeline.runtime.errors import UserError
from pipeline.tools import demo
from pipeline.tools.ports import free_port
from tests.command_line import maskgit
from tests.project import ROOT
from tests.tiny_project import SIDE, validation

pytest.importorskip("gradio")
page = pytest.importorskip("pipeline.tools.demo_page")


@pytest.fixture
def picture(project, monkeypatch) -> Image.Image:
    monkeypatch.chdir(project)
    return MaskGIT.to_pil(validation(1)[0])[0]


def on_canvas(picture: Image.Image, top: int = 0) -> Image.Image:
    """As the editor gives it: a square with transparent pixels around the picture."""
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
    assert shown[0] == (blank, 0)
    assert shown[-1][0] == grid_picture(model.sample("class1", 7, seed=3, **settings), 5)
    times = [seconds for _, seconds in shown]
    assert times == sorted(times) and times[-1] > 0


def test_an_enlarged_example_is_filled_where_it_was_drawn_over(model, picture):
    large = page.enlarged(picture)
    assert large.size == (640, 640)
    layers = [strokes(640, (160, 160, 320, 480)), strokes(640, (400, 400, 480, 480))]
    row = page.fillings(model, on_canvas(large), layers, "class2", 5, iterations=2)
    hole = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    hole[2:6, 2:4] = hole[5, 5] = True
    images = torch.from_numpy(np.array(picture))[None, None]  # as it was before it was enlarged
    filled = model.inpaint(images.repeat(4, 1, 1, 1), "class2", mask=hole, seed=5, iterations=2)
    assert row == grid_picture(filled, 4)


def test_transparent_pixels_around_a_picture_are_not_part_of_it(model, picture):
    wide = Image.effect_noise((96, 48), 80)
    stroke = strokes(96, (40, 40, 60, 50))
    row = page.fillings(model, on_canvas(wide, top=24), [stroke], "class0", 0)
    hole = np.zeros((48, 96), bool)
    hole[16:26, 40:60] = True
    assert row == grid_picture(model.inpaint([wide] * 4, "class0", mask=hole, seed=0), 4)


def test_without_a_picture_or_a_stroke_it_says_what_to_do(model, picture):
    canvas = on_canvas(picture)
    for given, layers in ((None, []), (Image.new("RGBA", (8, 8)), [strokes(8, (0, 0, 8, 8))])):
        with pytest.raises(UserError) as error:
            page.fillings(model, given, layers, "class0", 0)
        assert "no picture" in error.value.subject
    with pytest.raises(UserError) as error:
        page.fillings(model, canvas, [strokes(8)], "class0", 0)
    assert "nothing is drawn" in error.value.subject


def test_without_gradio_the_line_names_what_to_install(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    done = maskgit("demo", capsys=capsys)
    assert done.code == 1 and done.out == "" and "maskgit-pipeline[demo]" in done.err


OPENED = """
import io
from PIL import Image
from pipeline.tools.demo import guard_uploads
guard_uploads()
for name in ("PNG", "JPEG", "WEBP", "EPS", "ICO", "TGA"):
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, name)
    try:
        Image.open(file)
        print(name)
    except Image.UnidentifiedImageError:
        pass
"""


@pytest.mark.slow
def test_uploads_of_other_formats_are_not_opened():
    done = subprocess.run(
        (sys.executable, "-c", OPENED), capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["PNG", "JPEG", "WEBP"]


def test_a_port_is_the_one_wanted_or_a_free_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", None, port) not in (0, port)
        with pytest.raises(UserError):
            free_port("127.0.0.1", port, 1)
    assert free_port("127.0.0.1", port, 1) == port
    for host in ("203.0.113.1", "é" * 70, ""):
        with pytest.raises(UserError):
            free_port(host, None, 0)
