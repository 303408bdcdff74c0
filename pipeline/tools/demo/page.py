"""The page: its controls, and which pictures they draw."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gradio as gr
from PIL import Image

from pipeline.api.defaults import Decoding
from pipeline.api.model import MaskGIT
from pipeline.runtime.errors import UserError
from pipeline.runtime.limits import SEED
from pipeline.schedules import SCHEDULES
from pipeline.tools.demo import drawing

WINDOWS = 2  # whose canvases are kept: those that drew last
Canvases = list[list[Image.Image]]  # by iteration, one a panel
ALL = "all classes, in turn"
# Events of one id wait for each other: the model serves one at a time.
ALONE: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": 1,
    "api_visibility": "private",
}
PIXELS = "pixels"  # class of elements whose pictures are enlarged as they are
CSS = f"""
.{PIXELS} img {{image-rendering: pixelated}}
.{PIXELS} .grid-container {{
  grid-template-columns: repeat(auto-fill, minmax(72px, 1fr)) !important;
}}
"""


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
    """Canvases side by side that fill, each with a schedule of its own, else alike."""
    most, iterations = drawing.most_samples(model), model.defaults.decoding.iterations
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
    kept = _Canvases()
    pictures, times = zip(*shown, strict=True)

    def fill(request: gr.Request, *values: Any) -> Iterator[tuple]:
        yield from _fill(model, kept.begin(request.session_hash), *values)

    def at(request: gr.Request, iteration: int) -> Any:
        return _at(iteration, kept.of(request.session_hash))

    press.click(fill, [label, count, *others, *schedules], [step, *pictures, *times], **ALONE)
    step.input(at, [step], [*pictures], show_progress="hidden", api_visibility="private")


class _Canvases:
    """The pictures of the last drawing of each window, for those that drew last: what gradio keeps
    of a session itself, it keeps of every drawing."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str | None, Canvases] = OrderedDict()

    def begin(self, window: str | None) -> Canvases:
        """An empty list for a new drawing."""
        self._kept.pop(window, None)
        self._kept[window] = []
        while len(self._kept) > WINDOWS:
            self._kept.popitem(last=False)
        return self._kept[window]

    def of(self, window: str | None) -> Canvases:
        return self._kept.get(window, [])


def _fill(
    model: MaskGIT,
    canvases: Canvases,
    label: str,
    count: int,
    iterations: int,
    temperature: float | None,
    seed: int | None,
    *schedules: str,
) -> Iterator[tuple]:
    classes = None if label == ALL else label
    with _in_page():
        settings = [_decoding(iterations, temperature, name) for name in schedules]
        each = [drawing.filling(model, classes, count, _seed(seed), **own) for own in settings]
        for number, shown in enumerate(zip(*each, strict=True)):
            canvases.append([canvas.picture for canvas in shown])
            step = gr.Slider(value=number, maximum=iterations)
            times = [_time(*pair) for pair in zip(schedules, shown, strict=True)]
            large = [drawing.enlarged(canvas.picture) for canvas in shown]
            yield step, *large, *times


def _at(step: int, canvases: Canvases) -> Any:
    with _in_page():
        if step not in range(len(canvases)):
            raise UserError("there is no canvas of this iteration yet; press Draw")
    pictures = [drawing.enlarged(picture) for picture in canvases[int(step)]]
    return pictures if len(pictures) > 1 else pictures[0]


def _editing(model: MaskGIT) -> None:
    given = drawing.examples(model)
    with gr.Row():
        with gr.Column():
            editor = _editor(drawing.canvas_side(model))
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
                elem_classes=PIXELS,
            )
        with gr.Column():
            label = gr.Dropdown(list(model.classes), label="Class that it becomes")
            schedule = _schedule(model)
            others = _settings(model, model.defaults.editing_iterations)
            press = gr.Button("Fill", variant="primary")
            result, time = _picture_and_time()

    def take(chosen: gr.SelectData) -> tuple[Image.Image, str]:
        picture, name = given[chosen.index]
        return drawing.enlarged(picture), name

    gallery.select(take, None, [editor, label], **ALONE)
    press.click(partial(_edit, model), [editor, label, *others, schedule], [result, time], **ALONE)


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
    decoding = _decoding(iterations, temperature, schedule)
    with _in_page():
        shown = drawing.fillings(model, picture, layers, label, _seed(seed), **decoding)
    return drawing.enlarged(shown.picture), _time(schedule, shown)


def _decoding(iterations: int, temperature: float | None, schedule: str) -> Decoding:
    given: Decoding = {"iterations": iterations, "schedule": schedule}
    if temperature is not None:  # else the run's own
        given["temperature"] = float(temperature)  # -1 comes as an int or as a float
    return given


def _seed(given: float | None) -> int:
    if given is None or not 0 <= given <= SEED or given % 1:
        raise UserError(f"seed: give a whole number from 0 to {SEED}")
    return int(given)


def _time(schedule: str, shown: drawing.Shown) -> str:
    return f"{schedule}, {shown.seconds:.2f} s"


def _schedule(model: MaskGIT, number: int = 0) -> gr.Dropdown:
    """At first the run's own, or the `number`-th of the others."""
    own = model.defaults.decoding.schedule
    names = [own, *(name for name in SCHEDULES if name != own)]
    return gr.Dropdown(list(SCHEDULES), value=names[number], label="Mask schedule")


def _settings(model: MaskGIT, iterations: int) -> list[gr.components.Component]:
    """T, the choice temperature and the seed; at first the run's own."""
    most = max(min(drawing.ITERATIONS, model.num_tokens), iterations)
    temperature = model.defaults.decoding.choice_temperature
    return [
        gr.Slider(1, most, iterations, step=1, label="Iterations T"),
        gr.Number(temperature, label="Choice temperature", step=0.5),
        gr.Number(0, label="Seed", precision=0),
    ]


def _editor(side: int) -> gr.ImageEditor:
    """Pictures are fitted into it: a brush has room on a small one, a large one takes no time."""
    return gr.ImageEditor(
        canvas_size=(side, side),
        fixed_canvas=True,
        type="pil",
        label="Draw over what is to be made anew",
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
            show_label=False, format="png", interactive=False, buttons=[], elem_classes=PIXELS
        )
        return picture, gr.Markdown()


@contextmanager
def _in_page() -> Iterator[None]:
    """What a user can put right is a message in the page."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None
