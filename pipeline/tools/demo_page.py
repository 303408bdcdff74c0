"""Builds the web page of `maskgit demo`, which draws pictures with the Python API."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image

from pipeline.api.model import MaskGIT
from pipeline.data.images.pixels import GREY, grid_picture
from pipeline.decoding.samplers import SAMPLERS
from pipeline.runtime.errors import UserError
from pipeline.schedules import SCHEDULES

SAMPLES, ITERATIONS = 25, 64  # upper limits of the controls
COLUMNS, FILLINGS, EXAMPLES = 5, 4, 12  # samples in a row, results of an edit, example pictures
WIDE = 640  # a small picture is enlarged to at most this many pixels on its longer side
ALL = "all classes, in turn"
# Events with the same id wait for each other: the model serves one event at a time.
ALONE: dict[str, Any] = {"concurrency_id": "model", "api_visibility": "private"}
# Pictures that the browser enlarges without smoothing.
SHOWN: dict[str, Any] = {"show_label": False, "interactive": False, "buttons": [], "format": "png"}
SHOWN["elem_classes"] = "sharp"
CSS = ".sharp img {image-rendering: pixelated}"


def canvases(
    model: MaskGIT, classes: str | None, count: int, seed: int, **decoding: Any
) -> Iterator[Image.Image]:
    """Yield pictures of the canvas: first blank, then after each iteration. The last picture
    shows the samples. `classes` is a class name; None cycles through all classes."""
    size = (count, model.channels, model.image_size, model.image_size)
    yield grid_picture(torch.full(size, GREY, dtype=torch.uint8), min(count, COLUMNS))
    for canvas in model.sample_steps(classes, count, seed=seed, **decoding):
        yield grid_picture(canvas.shown, min(count, COLUMNS))


def fillings(
    model: MaskGIT,
    picture: Image.Image | None,
    layers: Sequence[Image.Image],
    label: str,
    seed: int,
    **decoding: Any,
) -> Image.Image:
    """Redraw the marked area of a picture `FILLINGS` times. Returns one picture with all results in
    a row. Raises a `UserError` if the editor has no picture, or if no area is marked.

    Args:
        picture: the editor's canvas, transparent outside the picture; None if the editor is empty.
        layers: the brush strokes, which are transparent where the picture is not marked.
    """
    area = None if picture is None else picture.getchannel("A").getbbox()
    if picture is None or area is None:
        raise UserError("there is no picture yet", "", "drop a picture here, or choose an example")
    picture = picture.crop(area)
    hole = np.zeros((picture.height, picture.width), bool)
    for layer in layers:
        hole |= np.asarray(layer.getchannel("A").crop(area)) > 0
    if not hole.any():
        raise UserError("no part is marked yet", "", "paint over the part to redraw")
    side = model.image_size
    small = picture.resize((side, side), Image.Resampling.NEAREST)
    if enlarged(small) == picture:  # an enlarged example; resizing would smooth it
        factor = picture.width // side
        picture, hole = small, hole.reshape(side, factor, side, factor).max(axis=(1, 3))
    results = model.inpaint([picture] * FILLINGS, label, mask=hole, seed=seed, **decoding)
    return grid_picture(results, FILLINGS)


def enlarged(picture: Image.Image) -> Image.Image:
    """Enlarge a small picture by a whole factor (nearest neighbour) up to `WIDE` pixels a side."""
    factor = max(1, WIDE // max(picture.size))
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST)


def build(model: MaskGIT) -> gr.Blocks:
    """Build the web page for a model, without serving the page."""
    size, colours = model.image_size, "grey" if model.channels == 1 else "RGB"
    with gr.Blocks(title="MaskGIT", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            f"# MaskGIT\n{size}×{size} {colours} pictures of {len(model.classes)} classes, "
            f"{model.grid}×{model.grid} tokens each"
        )
        with gr.Tab("Sample"):
            _sampling(model, panels=1)
        with gr.Tab("Two ways to decode"):
            _sampling(model, panels=2)
        with gr.Tab("Edit a picture"):
            _editing(model)
    return page


def _sampling(model: MaskGIT, panels: int) -> None:
    """Add sampling controls and `panels` canvases. Each canvas has its own schedule and sampler."""
    most = min(SAMPLES, model.defaults.batch_size)
    with gr.Row():
        with gr.Column(scale=1):
            label = gr.Dropdown([ALL, *model.classes], label="Class")
            count = gr.Slider(1, most, min(10, most), step=1, label="Samples")
            menus = [_schedule(model, number) for number in range(panels)]
            own = model.defaults.decoding.sampler
            menus += [gr.Dropdown([*SAMPLERS], value=own, label="Sampler") for _ in range(panels)]
            settings = _settings(model, model.defaults.decoding.iterations)
            press = gr.Button("Draw", variant="primary")
        with gr.Column(scale=2), gr.Row():
            pictures = [gr.Image(**SHOWN) for _ in range(panels)]

    def draw(label, count, iterations, temperature, seed, *menus):
        classes = None if label == ALL else label
        own = {"iterations": iterations, "temperature": temperature}
        ways = zip(menus[:panels], menus[panels:], strict=True)
        each = [
            canvases(model, classes, count, seed, schedule=a, sampler=b, **own) for a, b in ways
        ]
        with _errors_in_page():
            for shown in zip(*each, strict=True):
                large = [enlarged(picture) for picture in shown]
                yield large if panels > 1 else large[0]

    press.click(draw, [label, count, *settings, *menus], pictures, **ALONE)


def _editing(model: MaskGIT) -> None:
    """Add the controls for editing, which redraws the marked part of a picture."""
    names = list(model.classes[:EXAMPLES])
    examples = model.to_pil(model.sample(names))
    with gr.Row():
        with gr.Column():
            side = enlarged(examples[0]).width  # side of the canvas: a brush needs room
            editor = gr.ImageEditor(
                canvas_size=(side, side),
                fixed_canvas=True,
                type="pil",
                label="Paint over the part to redraw",
                height=480,
                brush=gr.Brush(colors=["#e8590c"], color_mode="fixed"),
                layers=False,
                transforms=(),
                sources=("upload", "clipboard"),
                format="png",
                buttons=[],
            )
            gr.Markdown("Examples")
            gallery = gr.Gallery(examples, columns=5, height="auto", allow_preview=False, **SHOWN)
        with gr.Column():
            label = gr.Dropdown(list(model.classes), label="Class that it becomes")
            schedule = _schedule(model)
            settings = _settings(model, model.defaults.editing_iterations)
            press = gr.Button("Fill", variant="primary")
            result = gr.Image(**SHOWN)

    def take(chosen: gr.SelectData) -> tuple[Image.Image, str]:
        return enlarged(examples[chosen.index]), names[chosen.index]

    def fill(edited, label, iterations, temperature, seed, schedule):
        picture, layers = (edited["background"], edited["layers"]) if edited else (None, [])
        own = {"iterations": iterations, "temperature": temperature, "schedule": schedule}
        with _errors_in_page():
            return enlarged(fillings(model, picture, layers, label, seed, **own))

    gallery.select(take, None, [editor, label], **ALONE)
    press.click(fill, [editor, label, *settings, schedule], result, **ALONE)


def _schedule(model: MaskGIT, number: int = 0) -> gr.Dropdown:
    """Create a menu of mask schedules. The menu initially shows the model's schedule if `number` is
    0, or another schedule if `number` is 1."""
    own = model.defaults.decoding.schedule
    names = [own, *(name for name in SCHEDULES if name != own)]
    return gr.Dropdown(list(SCHEDULES), value=names[number], label="Mask schedule")


def _settings(model: MaskGIT, iterations: int) -> list[gr.components.Component]:
    """Controls for T (initially `iterations`), the choice temperature and the seed."""
    most = max(min(ITERATIONS, model.num_tokens), iterations)
    temperature = model.defaults.decoding.choice_temperature
    return [
        gr.Slider(1, most, iterations, step=1, label="Iterations T"),
        gr.Number(temperature, label="Choice temperature", step=0.5),
        gr.Number(0, label="Seed", precision=0),
    ]


@contextmanager
def _errors_in_page() -> Iterator[None]:
    """Show a `UserError` as a message in the page."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None
