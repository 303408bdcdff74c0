"""The page of `maskgit demo`: its controls, and the pictures that the Python API draws for them."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Unpack

import gradio as gr
import numpy as np
import torch
from PIL import Image

from pipeline.api.defaults import Decoding
from pipeline.api.model import GREY, MaskGIT
from pipeline.data.image_grid import grid_picture
from pipeline.runtime.errors import UserError
from pipeline.runtime.limits import SEED
from pipeline.schedules import SCHEDULES

# Bounds of the memory of a drawing, each canvas of which is kept for the slider.
SAMPLES, PIXELS, ITERATIONS = 25, 2**19, 64
COLUMNS = 5
FILLINGS = 4  # results of an edit
EXAMPLES = 12
WIDE = 640  # pixels of the longer side to which a small picture is enlarged
ALL = "all classes, in turn"
# Events with one id wait for each other: the model serves one at a time.
ALONE: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": 1,
    "api_visibility": "private",
}
SHARP = "sharp"  # class of elements whose pictures the browser enlarges without smoothing
CSS = f".{SHARP} img {{image-rendering: pixelated}}"


def canvases(
    model: MaskGIT, classes: str | None, count: int, seed: int, **decoding: Unpack[Decoding]
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
    **decoding: Unpack[Decoding],
) -> Image.Image:
    """A row of results: a picture whose marked part is drawn again as a class.

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
    colours = "grey" if model.channels == 1 else "RGB"
    size = f"{model.image_size}×{model.image_size} {colours}"
    with gr.Blocks(title="MaskGIT", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            f"# MaskGIT\n{size} pictures of {len(model.classes)} classes, "
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
            others = _settings(model, iterations)
            press = gr.Button("Draw", variant="primary")
        with gr.Column(scale=2):
            step = gr.Slider(0, iterations, 0, step=1, label="Iteration shown")
            with gr.Row():
                shown = [_picture_and_time() for _ in range(panels)]
    drawn = gr.State([])  # a list of pictures for each iteration
    pictures, times = zip(*shown, strict=True)
    press.click(
        partial(_draw, model),
        [label, count, *others, *schedules],
        [drawn, step, *pictures, *times],
        **ALONE,
    )
    step.input(_at, [step, drawn], [*pictures], show_progress="hidden", api_visibility="private")


def _draw(
    model: MaskGIT,
    label: str,
    count: int,
    iterations: int,
    temperature: float | None,
    seed: int | None,
    *schedules: str,
) -> Iterator[tuple]:
    with _errors_in_page():
        classes, drawn = None if label == ALL else label, []
        settings = [_decoding(iterations, temperature, name) for name in schedules]
        each = [canvases(model, classes, count, _seed(seed), **own) for own in settings]
        for number, shown in enumerate(zip(*each, strict=True)):
            drawn.append([enlarged(picture) for picture, _ in shown])
            times = [_time(name, own[1]) for name, own in zip(schedules, shown, strict=True)]
            yield drawn, gr.Slider(value=number, maximum=iterations), *drawn[-1], *times


def _at(step: int, drawn: list[list[Image.Image]]) -> Any:
    if not 0 <= step < len(drawn):
        raise gr.Error("no canvas of this iteration was drawn yet", print_exception=False)
    return drawn[step] if len(drawn[step]) > 1 else drawn[step][0]


def _editing(model: MaskGIT) -> None:
    names = list(model.classes[:EXAMPLES])
    given = list(zip(model.to_pil(model.sample(names)), names, strict=True))
    with gr.Row():
        with gr.Column():
            editor = _editor(enlarged(given[0][0]).width)
            gr.Markdown("Examples")
            gallery = gr.Gallery(
                [picture for picture, _ in given],
                show_label=False,
                columns=5,
                height="auto",
                allow_preview=False,
                format="png",
                interactive=False,
                buttons=[],
                elem_classes=SHARP,
            )
        with gr.Column():
            label = gr.Dropdown(list(model.classes), label="Class that it becomes")
            schedule = _schedule(model)
            others = _settings(model, model.defaults.editing_iterations)
            press = gr.Button("Fill", variant="primary")
            result, took = _picture_and_time()

    def take(chosen: gr.SelectData) -> tuple[Image.Image, str]:
        picture, name = given[chosen.index]
        return enlarged(picture), name

    gallery.select(take, None, [editor, label], **ALONE)
    press.click(partial(_edit, model), [editor, label, *others, schedule], [result, took], **ALONE)


def _edit(
    model: MaskGIT,
    edited: dict[str, Any] | None,
    label: str,
    iterations: int,
    temperature: float | None,
    seed: int | None,
    schedule: str,
) -> tuple[Image.Image, str]:
    picture, layers = (edited["background"], edited["layers"]) if edited else (None, [])
    started = time.perf_counter()
    with _errors_in_page():
        decoding = _decoding(iterations, temperature, schedule)
        row = fillings(model, picture, layers, label, _seed(seed), **decoding)
    return enlarged(row), _time(schedule, time.perf_counter() - started)


def _decoding(iterations: int, temperature: float | None, schedule: str) -> Decoding:
    given: Decoding = {"iterations": iterations, "schedule": schedule}
    if temperature is not None:  # else the run's own
        given["temperature"] = float(temperature)  # gradio gives -1 as an int or as a float
    return given


def _seed(given: float | None) -> int:
    if given is None or not 0 <= given <= SEED or given % 1:
        raise UserError("seed", "not a seed", f"give a whole number from 0 to {SEED}")
    return int(given)


def _time(schedule: str, seconds: float) -> str:
    return f"{schedule}, {seconds:.2f} s"


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


def _editor(side: int) -> gr.ImageEditor:
    """Pictures are fitted into it: a brush needs room on a small one."""
    return gr.ImageEditor(
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


def _picture_and_time() -> tuple[gr.Image, gr.Markdown]:
    with gr.Column(min_width=160):
        picture = gr.Image(
            show_label=False, format="png", interactive=False, buttons=[], elem_classes=SHARP
        )
        return picture, gr.Markdown()


@contextmanager
def _errors_in_page() -> Iterator[None]:
    """Show a `UserError` as a message in the page."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None
