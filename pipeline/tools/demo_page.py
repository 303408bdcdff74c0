"""The page of `maskgit demo`: its controls, and the pictures that the Python API draws for them."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image

from pipeline.api.model import GREY, MaskGIT
from pipeline.data.image_grid import grid_picture
from pipeline.runtime.errors import UserError
from pipeline.schedules import SCHEDULES

# Bounds of the memory of a drawing, each canvas of which is kept for the slider.
SAMPLES, PIXELS, ITERATIONS = 25, 2**19, 64
COLUMNS = 5
FILLINGS = 4  # results of an edit
EXAMPLES = 12
WIDE = 640  # pixels of the longer side to which a small picture is enlarged
ALL = "all classes, in turn"
# Events with one id wait for each other: the model serves one at a time.
ALONE: dict[str, Any] = {"concurrency_id": "model", "api_visibility": "private"}
# Pictures that the browser enlarges without smoothing.
SHOWN: dict[str, Any] = {"show_label": False, "interactive": False, "buttons": [], "format": "png"}
SHOWN["elem_classes"] = "sharp"
CSS = ".sharp img {image-rendering: pixelated}"


def canvases(
    model: MaskGIT, classes: str | None, count: int, seed: int, **decoding: Any
) -> Iterator[tuple[Image.Image, float]]:
    """The blank canvas, then the canvas after each iteration, each with the seconds that the model
    took so far; the last canvas is the samples.

    Args:
        classes: one, or None to cycle through all.
    """
    columns, seconds = min(count, COLUMNS), 0.0
    steps = model.sample_steps(classes, count, seed=seed, **decoding)
    size = (count, model.channels, model.image_size, model.image_size)
    yield grid_picture(torch.full(size, GREY, dtype=torch.uint8), columns), 0.0
    while True:
        started = time.perf_counter()  # of the decoding alone: to show it takes time as well
        canvas = next(steps, None)
        seconds += time.perf_counter() - started
        if canvas is None:
            return
        yield grid_picture(canvas.shown, columns), seconds


def fillings(
    model: MaskGIT,
    picture: Image.Image | None,
    layers: Sequence[Image.Image],
    label: str,
    seed: int,
    **decoding: Any,
) -> Image.Image:
    """A row of results: a picture whose drawn-over part is drawn again as a class.

    Args:
        picture: transparent where the canvas is larger than the picture.
        layers: what was drawn, transparent where the picture stays.

    Raises:
        UserError: there is no picture, or nothing is drawn on it.
    """
    area = None if picture is None else picture.getchannel("A").getbbox()
    if picture is None or area is None:
        raise UserError("there is no picture yet", "", "drop one on the canvas, or take an example")
    picture = picture.crop(area)
    hole = np.zeros((picture.height, picture.width), bool)
    for layer in layers:
        hole |= np.asarray(layer.getchannel("A").crop(area)) > 0
    if not hole.any():
        raise UserError("nothing is drawn yet", "", "draw with the brush over a part")
    side = model.image_size
    small = picture.resize((side, side), Image.Resampling.NEAREST)
    if enlarged(small) == picture:  # an example, which resizing would smooth
        factor = picture.width // side
        picture, hole = small, hole.reshape(side, factor, side, factor).max(axis=(1, 3))
    results = model.inpaint([picture] * FILLINGS, label, mask=hole, seed=seed, **decoding)
    return grid_picture(results, FILLINGS)


def enlarged(picture: Image.Image) -> Image.Image:
    """A small picture as large as `WIDE` allows, without smoothing."""
    factor = max(1, WIDE // max(picture.size))
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST)


def build(model: MaskGIT) -> gr.Blocks:
    """The page of a model; nothing is served yet."""
    size, colours = model.image_size, "grey" if model.channels == 1 else "RGB"
    with gr.Blocks(title="MaskGIT", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            f"# MaskGIT\n{size}×{size} {colours} pictures of {len(model.classes)} classes, "
            f"{model.grid}×{model.grid} tokens each"
        )
        with gr.Tab("Sample"):
            _sampling(model, panels=1)
        with gr.Tab("Two schedules"):
            _sampling(model, panels=2)
        with gr.Tab("Edit a picture"):
            _editing(model)
    return page


def _sampling(model: MaskGIT, panels: int) -> None:
    """Canvases side by side that fill, each with a schedule of its own."""
    iterations = model.defaults.decoding.iterations
    most = min(SAMPLES, max(1, PIXELS // model.image_size**2), model.defaults.batch_size)
    with gr.Row():
        with gr.Column(scale=1):
            label = gr.Dropdown([ALL, *model.classes], label="Class")
            count = gr.Slider(1, most, min(10, most), step=1, label="Samples")
            schedules = [_schedule(model, number) for number in range(panels)]
            settings = _settings(model, iterations)
            press = gr.Button("Draw", variant="primary")
        with gr.Column(scale=2):
            step = gr.Slider(0, iterations, 0, step=1, label="Iteration shown")
            with gr.Row():
                pictures, times = zip(*(_picture_and_time() for _ in range(panels)), strict=True)
    drawn = gr.State([])  # a list of pictures for each iteration

    def draw(label, count, iterations, temperature, seed, *schedules):
        classes, drawn = None if label == ALL else label, []
        own = {"iterations": iterations, "temperature": temperature}
        each = [canvases(model, classes, count, seed, schedule=s, **own) for s in schedules]
        with _errors_in_page():
            for number, shown in enumerate(zip(*each, strict=True)):
                drawn.append([enlarged(picture) for picture, _ in shown])
                took = [f"{s}, {of[1]:.2f} s" for s, of in zip(schedules, shown, strict=True)]
                yield drawn, gr.Slider(value=number, maximum=iterations), *drawn[-1], *took

    def go_back(step: int, drawn: list[list[Image.Image]]) -> Any:
        if not 0 <= step < len(drawn):
            raise gr.Error("no canvas of this iteration was drawn yet", print_exception=False)
        return drawn[step] if panels > 1 else drawn[step][0]

    shown = [drawn, step, *pictures, *times]
    press.click(draw, [label, count, *settings, *schedules], shown, **ALONE)
    quiet: Any = {"show_progress": "hidden", "api_visibility": "private"}
    step.input(go_back, [step, drawn], [*pictures], **quiet)


def _editing(model: MaskGIT) -> None:
    """A picture of one's own, or an example, whose drawn-over part is filled."""
    names = list(model.classes[:EXAMPLES])
    examples = model.to_pil(model.sample(names))
    with gr.Row():
        with gr.Column():
            side = enlarged(examples[0]).width  # pictures are fitted into it: a brush needs room
            editor = gr.ImageEditor(
                canvas_size=(side, side),
                fixed_canvas=True,
                type="pil",
                label="Draw over the part to draw again",
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
            result, took = _picture_and_time()

    def take(chosen: gr.SelectData) -> tuple[Image.Image, str]:
        return enlarged(examples[chosen.index]), names[chosen.index]

    def fill(edited, label, iterations, temperature, seed, schedule):
        picture, layers = (edited["background"], edited["layers"]) if edited else (None, [])
        own = {"iterations": iterations, "temperature": temperature, "schedule": schedule}
        started = time.perf_counter()
        with _errors_in_page():
            row = enlarged(fillings(model, picture, layers, label, seed, **own))
        return row, f"{schedule}, {time.perf_counter() - started:.2f} s"

    gallery.select(take, None, [editor, label], **ALONE)
    press.click(fill, [editor, label, *settings, schedule], [result, took], **ALONE)


def _schedule(model: MaskGIT, number: int = 0) -> gr.Dropdown:
    """At first the run's own, or the `number`-th of the others."""
    own = model.defaults.decoding.schedule
    names = [own, *(name for name in SCHEDULES if name != own)]
    return gr.Dropdown(list(SCHEDULES), value=names[number], label="Mask schedule")


def _settings(model: MaskGIT, iterations: int) -> list[gr.components.Component]:
    """T, the choice temperature and the seed; at first the run's own."""
    most = max(min(ITERATIONS, model.num_tokens), iterations)
    temperature = model.defaults.decoding.choice_temperature
    return [
        gr.Slider(1, most, iterations, step=1, label="Iterations T"),
        gr.Number(temperature, label="Choice temperature", step=0.5),
        gr.Number(0, label="Seed", precision=0),
    ]


def _picture_and_time() -> tuple[gr.Image, gr.Markdown]:
    with gr.Column(min_width=160):
        return gr.Image(**SHOWN), gr.Markdown()


@contextmanager
def _errors_in_page() -> Iterator[None]:
    """Show a `UserError` as a message in the page."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None
