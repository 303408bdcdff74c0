"""Pictures in rows and columns on a transparent ground; the labels read on white and on black."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.exhibits.style import figure

GREY = "#767676"
CELL_INCHES = (0.6, 1.4)  # height of one picture, small ones to large ones
MAX_INCHES = 9.4  # width of the pictures: labels beside them, they fill the report's column
LETTERS = (8.3, 9)  # points; less than 11 pixels is not read
LETTER = 0.62  # mean width of a letter, as a fraction of its size


def draw_mosaic(
    images: np.ndarray,
    path: Path,
    dpi: int,
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    block: tuple[int, int] | None = None,
    empty: np.ndarray | None = None,
) -> None:
    """Draw pictures with thin gaps between them.

    Args:
        images: (rows, columns, H, W, C) uint8, C = 1 or 3.
        column_labels: one a column, or one a block.
        block: rows and columns that belong together; between blocks the gap is wide.
        empty: (rows, columns) bool, cells without a picture.
    """
    rows, columns, height, width, _ = images.shape
    gap = max(1, height // 16)
    down, across = block or (rows, columns)
    tops = np.arange(rows) * (height + gap) + np.arange(rows) // down * 3 * gap
    lefts = np.arange(columns) * (width + gap) + np.arange(columns) // across * 3 * gap
    canvas = _laid_out(images, tops, lefts, empty)

    cell = float(np.clip(height / dpi, *CELL_INCHES))
    scale = min(cell / height, MAX_INCHES / canvas.shape[1])  # inches a pixel
    # The axes fill the figure exactly; labels lie outside it and saving grows to hold them.
    size = (canvas.shape[1] * scale, canvas.shape[0] * scale)
    with figure(path, size, dpi, facecolor="none") as drawing:
        drawing.set_layout_engine("none")
        axes = drawing.add_axes((0, 0, 1, 1))
        axes.imshow(canvas, interpolation="nearest" if scale * dpi > 1 else "antialiased")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_facecolor("none")
        axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False, colors=GREY)
        centres, room = lefts + width / 2, width * scale * 72
        if len(column_labels) < columns:  # one a block
            centres, room = centres.reshape(-1, across).mean(axis=1), across * room
        text, letters = _fitted(column_labels, room)
        # Names of classes are anyone's: a dollar sign in one begins no formula.
        axes.set_xticks(centres if text else [], text, fontsize=letters, parse_math=False)
        middles = tops + height / 2 if len(row_labels) else []
        axes.set_yticks(middles, row_labels, parse_math=False)


def _laid_out(
    images: np.ndarray, tops: np.ndarray, lefts: np.ndarray, empty: np.ndarray | None
) -> np.ndarray:
    """Pictures at their places, (H, W, 4) uint8, transparent where none is."""
    height, width = images.shape[2:4]
    canvas = np.zeros((tops[-1] + height, lefts[-1] + width, 4), np.uint8)
    for r, top in enumerate(tops):
        for c, left in enumerate(lefts):
            if empty is None or not empty[r, c]:
                canvas[top : top + height, left : left + width, :3] = images[r, c]
                canvas[top : top + height, left : left + width, 3] = 255
    return canvas


def _fitted(labels: Sequence[str], room: float) -> tuple[list[str], float]:
    """Labels broken into lines, and the size of letters at which they fit into `room` points."""
    longest = max((len(word) for label in labels for word in label.split()), default=1)
    size = float(np.clip(room / (LETTER * longest), *LETTERS))
    line = max(1, int(room / (LETTER * size)))
    return [textwrap.fill(label, line) for label in labels], size


def even_selection(available: int, most: int) -> np.ndarray:
    """At most `most` indices below `available`, evenly spaced, with the first and the last."""
    return np.linspace(0, available - 1, min(available, most)).round().astype(int)


def shortened(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
