"""Figure 2: the canvas after each decoding iteration."""

from pathlib import Path

import numpy as np

from analysis.exhibits.base import Figure
from analysis.exhibits.formatting import percent
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.mosaic import draw_mosaic, even_selection
from pipeline.config.params import Params

MAX_ITERATIONS = 12
GREY = 150.0  # of the cover over masked tokens
OPACITY = 0.8


def pictures(results: Results, params: Params) -> Figure:
    """The sample after each iteration, with the tokens that are still masked covered."""
    images, masked = results.decoding["images"], results.decoding["masked"]
    total = len(images)
    return Figure(
        name="figure2",
        title=f"Figure 2: decoding in T = {total} iterations (grey: still masked)",
        alt="A row of pictures for each sample: the canvas after each iteration. The grey tokens, "
        "which are still masked, become fewer until none is left.",
        paper="all tokens are predicted at once, the most confident ones are kept, and within a "
        "few iterations the image is done; VQGAN needs one for each token.",
        here=[_left(masked)],
        draw=lambda path, dpi: draw_decoding(images, masked, path, dpi),
    )


def _left(masked: np.ndarray) -> str:
    """How many tokens are still masked, from (T, n, h, w)."""
    left, total = masked.mean(axis=(1, 2, 3)), len(masked)
    if total == 1:
        return "All tokens are kept after a single iteration."
    said = (
        f"{percent(left[0])} of the tokens are still masked after the first of {total} iterations"
    )
    half = total // 2
    halfway = f", {percent(left[half - 1])} after {half}" if half > 1 else ""
    return f"{said}{halfway}, none after the last."


def draw_decoding(images: np.ndarray, masked: np.ndarray, path: Path, dpi: int) -> None:
    """Draw the canvas after each iteration, tokens that are still masked under translucent grey.

    Args:
        images: (T, n, H, W, C) uint8, the sample after each iteration.
        masked: (T, n, h, w) bool, tokens masked again after it; the last is ignored, as the
            answer has none.
    """
    unknown = masked.copy()
    unknown[-1] = False
    # Nearest token of each pixel.
    rows = np.arange(images.shape[2]) * masked.shape[2] // images.shape[2]
    columns = np.arange(images.shape[3]) * masked.shape[3] // images.shape[3]
    cover = OPACITY * unknown[:, :, rows[:, None], columns, None]
    canvas = (images * (1 - cover) + GREY * cover).round().astype(np.uint8)
    shown = even_selection(len(images), MAX_ITERATIONS)
    draw_mosaic(
        canvas[shown].swapaxes(0, 1),
        path,
        dpi,
        column_labels=[f"t = {i + 1}" for i in shown],
    )
