"""`maskgit demo`: what its page shows is what the Python API draws, and what is wrong is a line."""

import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import MaskGIT
from pipeline.data.image_grid import grid_picture
from pipeline.runtime.errors import UserError
from pipeline.tools.demo import drawing, serving
from pipeline.tools.ports import free_port
from tests.command_line import maskgit
from tests.project import ROOT
from tests.tiny_project import SIDE, validation


@pytest.fixture
def picture(project, monkeypatch) -> Image.Image:
    monkeypatch.chdir(project)
    return MaskGIT.to_pil(validation(1)[0])[0]


def on_canvas(picture: Image.Image, left: int = 0, top: int = 0) -> Image.Image:
    """As the editor gives it: a square with transparent pixels around the picture."""
    side = max(picture.size)
    canvas = Image.new("RGBA", (side, side))
    canvas.paste(picture.convert("RGBA"), (left, top))
    return canvas


def strokes(side: int, *boxes: tuple[int, int, int, int]) -> Image.Image:
    layer = Image.new("RGBA", (side, side))
    for box in boxes:
        layer.paste("orange", box)
    return layer


def test_the_canvas_fills_until_it_is_the_samples_of_the_same_seed(model):
    settings = {"iterations": 4, "schedule": "linear", "temperature": 1.0}
    shown = list(drawing.filling(model, "class1", 7, 3, **settings))
    assert len(shown) == 1 + 4
    blank = grid_picture(torch.full((7, 1, SIDE, SIDE), 128, dtype=torch.uint8), 5)
    assert shown[0].picture == blank and shown[0].seconds == 0
    assert shown[-1].picture == grid_picture(model.sample("class1", 7, seed=3, **settings), 5)
    times = [each.seconds for each in shown]
    assert times == sorted(times) and times[-1] > 0


def test_a_hole_is_what_was_drawn_and_is_filled_four_times(model, picture):
    large = drawing.enlarged(picture)
    assert large.size == (640, 640) == (drawing.canvas_side(model),) * 2
    layers = [strokes(640, (160, 160, 320, 480)), strokes(640, (400, 400, 480, 480))]
    shown = drawing.fillings(model, on_canvas(large), layers, "class2", 5, iterations=2)
    hole = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    hole[2:6, 2:4] = hole[5, 5] = True
    images = torch.from_numpy(np.array(picture))[None, None]  # as it was before it was enlarged
    filled = model.inpaint(images.repeat(4, 1, 1, 1), "class2", mask=hole, seed=5, iterations=2)
    assert shown.picture == grid_picture(torch.cat([images.masked_fill(hole, 128), filled]), 5)


def test_what_is_transparent_around_a_picture_is_none_of_it(model, picture):
    wide = Image.effect_noise((96, 48), 80)
    stroke = strokes(96, (40, 40, 60, 50))
    shown = drawing.fillings(model, on_canvas(wide, top=24), [stroke], "class0", 0)
    hole = np.zeros((48, 96), bool)
    hole[16:26, 40:60] = True
    filled = model.inpaint([wide] * 4, "class0", mask=hole, seed=0)
    wanted = grid_picture(filled, 4)
    left = shown.picture.width - wanted.width  # of the fillings; before them is the picture
    assert shown.picture.crop((left, 0, *shown.picture.size)) == wanted


def test_without_a_picture_or_a_stroke_it_says_what_to_do(model, picture):
    canvas = on_canvas(picture)
    for given, layers in ((None, []), (Image.new("RGBA", (8, 8)), [strokes(8, (0, 0, 8, 8))])):
        with pytest.raises(UserError, match=r"no picture yet; drop one .* or press an example"):
            drawing.fillings(model, given, layers, "class0", 0)
    for layers in ([], [strokes(8)]):
        with pytest.raises(UserError, match="nothing is drawn yet; draw with the brush"):
            drawing.fillings(model, canvas, layers, "class0", 0)


def test_examples_are_validation_images_of_each_class_or_samples(model, project, tmp_path, picture):
    images, labels = validation(24)
    shown = drawing.examples(model)
    assert [name for _, name in shown] == ["class0", "class1", "class2"]
    for label, (example, _) in enumerate(shown):
        assert example == MaskGIT.to_pil(images[labels == label][:1])[0]
    saved = MaskGIT.from_pretrained(model.save_pretrained(tmp_path / "saved"), device="cpu")
    assert saved.project is None and model.project == project
    own = zip(MaskGIT.to_pil(model.sample()), model.classes, strict=True)
    assert drawing.examples(saved) == list(own)


@pytest.mark.parametrize(("side", "most"), [(8, 10), (32, 10), (256, 8), (512, 2), (1024, 1)])
def test_the_canvases_that_are_kept_are_bounded(model, monkeypatch, side, most):
    monkeypatch.setattr(MaskGIT, "image_size", side)
    assert drawing.most_samples(model) == most  # 10 is decoding.batch_size


def test_without_gradio_the_line_names_what_to_install(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    done = maskgit("demo", capsys=capsys)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "error: `maskgit demo` needs gradio, which is not installed; `pip install "
        "'maskgit-pipeline[demo]'`, or in a clone `pip install -e '.[demo]'`\n"
    )


OPENED = """
import io
from PIL import Image
from pipeline.tools.demo.serving import guard_uploads
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


def test_uploads_of_formats_that_nothing_else_here_opens_are_not_opened():
    done = subprocess.run(
        (sys.executable, "-c", OPENED), capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["PNG", "JPEG", "WEBP"]


def test_a_port_is_the_one_wanted_or_a_free_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", None, port) not in (0, port)
        with pytest.raises(UserError, match=rf"on 127.0.0.1, port {port} \(Address .* in use\)"):
            free_port("127.0.0.1", port, 1)
    assert free_port("127.0.0.1", port, 1) == port
    with pytest.raises(UserError, match=r"cannot listen on 203.0.113.1 .* give another host"):
        free_port("203.0.113.1", None, 0)
    with pytest.raises(UserError, match="there is no such host"):
        free_port("é" * 70, None, 0)


def test_a_port_that_is_taken_just_now_is_a_line(monkeypatch):
    def launch(**given):
        raise OSError("Cannot find empty port in range: 7860-7860.")

    page = SimpleNamespace(queue=lambda **given: SimpleNamespace(launch=launch))
    built = SimpleNamespace(build=lambda model: page, CSS="")
    monkeypatch.setitem(sys.modules, "pipeline.tools.demo.page", built)
    with pytest.raises(UserError, match=r"^cannot listen on 127.0.0.1, port 7860 any more; run"):
        serving._serve(None, "127.0.0.1", 7860)
