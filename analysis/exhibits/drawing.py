"""Styles and saves all figures, and draws pictures in rows and columns."""

import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from pipeline.runtime.files import atomic_file

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.05,
}

# System fonts with Chinese, Japanese and Korean letters, for class names.
OTHER_FONTS = ("Noto Sans CJK JP", "Hiragino Sans", "PingFang SC", "Microsoft YaHei")

# Okabe and Ito's colours, which colour-blind readers can distinguish. Their yellow is too pale for
# lines on white and is replaced by Tol's olive.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
COLOURS = {
    "exponential": ORANGE,
    "cubic": "#56B4E9",
    "square": GREEN,
    "cosine": VERMILION,
    "linear": BLUE,
    "square_root": "#CC79A7",
    "logarithmic": "#4D4D4D",
    "arccos": "#999933",
}
MORE_COLOURS = ("#882255", "#44AA99", "#332288", "#AA4499", "#661100", "#117733")


def schedule_colours(schedules: list[str]) -> dict[str, str]:
    """A colour per schedule: fixed for known schedules, by order of appearance for others."""
    others = [name for name in schedules if name not in COLOURS]
    more = {name: MORE_COLOURS[i % len(MORE_COLOURS)] for i, name in enumerate(others)}
    return {name: COLOURS.get(name) or more[name] for name in schedules}


DPI = 150  # resolution of figures
NARROW = 3.5  # width in inches of a chart for narrow screens


def plain_numbers(axis: Axis, logarithmic: bool) -> None:
    """Label ticks with plain numbers; a logarithmic axis gets ticks at 1, 2 and 5."""
    if logarithmic:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def log_steps(axes: Axes, values: Iterable[float]) -> None:
    """Make the x axis logarithmic, with a tick at each value."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(set(values)))
    axes.set_xticks([], minor=True)
    plain_numbers(axes.xaxis, logarithmic=False)


@contextmanager
def figure(path: Path, size: tuple[float, float], facecolor: str = "white") -> Iterator[Figure]:
    """Yield a figure (`size` in inches), and save it as PNG. The same figure gives the same bytes.

    pyplot is not used, since it needs global state. The user's own matplotlib settings are ignored,
    and the PNG does not contain matplotlib's version. Letters that no font has are drawn as boxes,
    without warnings.
    """
    installed = fontManager.get_font_names()
    fonts = {"font.family": ["sans-serif", *(f for f in OTHER_FONTS if f in installed)]}
    with matplotlib.style.context(["default", STYLE, fonts]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        canvas = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor=facecolor)
        yield canvas
        with atomic_file(path) as temporary:
            canvas.savefig(temporary, format="png", metadata={"Software": None})


@contextmanager
def panels(
    path: Path,
    narrow: bool,
    size: tuple[float, float],
    tall: float,
    count: int = 2,
    space: float = 0.02,
    ncols: int = 1,
) -> Iterator[tuple[list[Axes], dict[str, Artist]]]:
    """Like `figure`, but yields the panels of a chart, and a dict for entries of the legend.

    Panels are side by side, or one above the other on a narrow screen. The legend shows the
    labelled lines of the last panel, then the entries that the caller adds to the dict (label →
    line or patch); on a narrow screen, the legend has `ncols` columns. `size` is the figure's width
    and height in inches on a wide screen, and `tall` is the figure's height on a narrow screen.
    `space` is the gap between panels, as a fraction of a panel's size.
    """
    with figure(path, (NARROW, tall) if narrow else size) as canvas:
        canvas.set_layout_engine("constrained", wspace=space, hspace=space)
        shape = (count, 1) if narrow else (1, count)
        drawn, entries = list(canvas.subplots(*shape, squeeze=False).flat), dict[str, Artist]()
        yield drawn, entries
        lines, labels = drawn[-1].get_legend_handles_labels()
        labels, lines = [*labels, *entries], [*lines, *entries.values()]
        if narrow:
            canvas.legend(lines, labels, loc="outside lower center", ncols=ncols)
        else:
            canvas.legend(lines, labels, loc="outside right center")


def curve(
    axes: Axes,
    x: pd.Series,
    y: pd.Series,
    low: pd.Series,
    high: pd.Series,
    colour: str,
    shade: float = 0.15,
    **look: Any,
) -> Artist:
    """Draw a line with markers, and a band between `low` and `high` with opacity `shade`. Returns
    the band."""
    axes.plot(x, y, marker="o", color=colour, **look)
    return axes.fill_between(x, low, high, color=colour, alpha=shade, lw=0)


# Pictures in rows and columns on a transparent background; labels are legible on white and black

GREY = "#767676"
CELL_INCHES = (0.6, 1.4)  # least and greatest height of a picture
MAX_INCHES = 9.4  # greatest width of all pictures; with labels, this fills the report's column
LETTERS = (8.3, 9)  # least and greatest font size in points; text below 11 pixels is not legible
LETTER = 0.62  # mean width of a letter, as a fraction of its size


def draw_mosaic(
    images: np.ndarray,
    path: Path,
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    block: tuple[int, int] | None = None,
    empty: np.ndarray | None = None,
) -> None:
    """Draw pictures, (rows, columns, H, W, C) uint8 with C = 1 or 3, with thin gaps between them.
    `empty`, of shape (rows, columns), is True for cells without a picture. `block` is the number of
    rows and columns in a block; gaps between blocks are wider. `column_labels` has one label per
    column, or one per column of blocks."""
    rows, columns, height, width, _ = images.shape
    gap = max(1, height // 16)
    down, across = block or (rows, columns)
    tops = np.arange(rows) * (height + gap) + np.arange(rows) // down * 3 * gap
    lefts = np.arange(columns) * (width + gap) + np.arange(columns) // across * 3 * gap
    canvas = _laid_out(images, tops, lefts, empty)

    cell = float(np.clip(height / DPI, *CELL_INCHES))
    scale = min(cell / height, MAX_INCHES / canvas.shape[1])  # inches per pixel
    # The axes fill the figure exactly; labels lie outside, and saving adds room for them.
    size = (canvas.shape[1] * scale, canvas.shape[0] * scale)
    with figure(path, size, facecolor="none") as drawing:
        drawing.set_layout_engine("none")
        axes = drawing.add_axes((0, 0, 1, 1))
        axes.imshow(canvas, interpolation="nearest" if scale * DPI > 1 else "antialiased")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_facecolor("none")
        axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False, colors=GREY)
        centres, room = lefts + width / 2, width * scale * 72
        if len(column_labels) < columns:  # one label per block
            centres, room = centres.reshape(-1, across).mean(axis=1), across * room
        text, letters = _fitted(column_labels, room)
        # A dollar sign in a class name must not begin a formula.
        axes.set_xticks(centres if text else [], text, fontsize=letters, parse_math=False)
        middles = tops + height / 2 if len(row_labels) else []
        axes.set_yticks(middles, row_labels, parse_math=False)


def _laid_out(
    images: np.ndarray, tops: np.ndarray, lefts: np.ndarray, empty: np.ndarray | None
) -> np.ndarray:
    """Put pictures at pixel rows `tops` and columns `lefts` of a canvas (H, W, 4): RGBA, uint8."""
    height, width = images.shape[2:4]
    canvas = np.zeros((tops[-1] + height, lefts[-1] + width, 4), np.uint8)
    for r, top in enumerate(tops):
        for c, left in enumerate(lefts):
            if empty is None or not empty[r, c]:
                canvas[top : top + height, left : left + width, :3] = images[r, c]
                canvas[top : top + height, left : left + width, 3] = 255
    return canvas


def _fitted(labels: Sequence[str], room: float) -> tuple[list[str], float]:
    """Break labels into lines for a width of `room` points. Returns the labels and a font size."""
    longest = max((len(word) for label in labels for word in label.split()), default=1)
    size = float(np.clip(room / (LETTER * longest), *LETTERS))
    line = max(1, int(room / (LETTER * size)))
    return [textwrap.fill(label, line) for label in labels], size


def even_selection(available: int, most: int) -> np.ndarray:
    """At most `most` evenly spaced indices from 0 to `available` − 1, including both ends."""
    return np.linspace(0, available - 1, min(available, most)).round().astype(int)


def shortened(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
