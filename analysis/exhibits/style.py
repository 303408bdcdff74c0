"""One look for all figures, and the one way they are saved."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import matplotlib.style
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
}

# Fonts that systems have, with letters that class names may have and matplotlib's own font lacks:
# Chinese, Japanese, Korean.
OTHER_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans JP", "Noto Sans SC"),
    *("Noto Sans KR", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("Hiragino Sans", "PingFang SC", "PingFang HK", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Yu Gothic", "Microsoft YaHei", "Malgun Gothic"),
)


def font_families() -> list[str]:
    """The font of all text, then those of this machine for the letters that it lacks."""
    installed = fontManager.get_font_names()
    return ["sans-serif", *(name for name in OTHER_FONTS if name in installed)]


# Okabe and Ito's colours, which colour-blind readers tell apart; its yellow is too pale for lines
# on white and is replaced by Tol's olive.
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
MORE_COLOURS = ("#882255", "#44AA99", "#332288", "#AA4499", "#661100")


def schedule_colours(schedules: list[str]) -> dict[str, str]:
    """A colour per schedule: fixed for the known ones, in order of appearance for the others."""
    others = [name for name in schedules if name not in COLOURS]
    more = {name: MORE_COLOURS[i % len(MORE_COLOURS)] for i, name in enumerate(others)}
    return {name: COLOURS.get(name) or more[name] for name in schedules}


NARROW = 3.5  # inches of a chart for a narrow screen, where it is not shrunk
LegendPlace = Literal["outside lower center", "outside right center"]


def legend_place(narrow: bool) -> LegendPlace:
    return "outside lower center" if narrow else "outside right center"


def panels(canvas: Figure, narrow: bool) -> list[Axes]:
    """Two panels: side by side, or for a narrow screen one above the other."""
    return list(canvas.subplots(2, 1) if narrow else canvas.subplots(1, 2))


def plain_numbers(axis: Axis, logarithmic: bool) -> None:
    """Ticks at 1, 2 and 5 in plain numbers, also where the scale is logarithmic."""
    if logarithmic:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


@contextmanager
def figure(
    path: Path, size: tuple[float, float], dpi: int, facecolor: str = "white"
) -> Iterator[Figure]:
    """Yield a figure (size in inches) and save it as PNG, the same bytes for the same content.

    Made without pyplot, so no display and no global state is involved; the user's own matplotlib
    settings are set aside and the PNG does not carry the library's version. Letters that no font
    has are drawn as boxes, without a warning for each.
    """
    fonts = {"font.family": font_families()}
    with matplotlib.style.context(["default", STYLE, fonts]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        canvas = Figure(figsize=size, dpi=dpi, layout="constrained")
        yield canvas
        with atomic_file(path) as temporary:
            canvas.savefig(
                temporary,
                format="png",
                dpi=dpi,
                bbox_inches="tight",
                pad_inches=0.05,
                facecolor=facecolor,
                metadata={"Software": None},
            )
