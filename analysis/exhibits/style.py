"""One look for all figures, and the one way they are saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

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


@contextmanager
def figure(
    path: Path, size: tuple[float, float], dpi: int, facecolor: str = "white"
) -> Iterator[Figure]:
    """Yield a figure (size in inches) and save it as PNG, the same bytes for the same content.

    Made without pyplot, so no display and no global state is involved; the user's own matplotlib
    settings are set aside and the PNG does not carry the library's version.
    """
    with matplotlib.style.context(["default", STYLE]):
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
