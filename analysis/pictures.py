"""Pictures: samples class by class, and the canvas at each decoding iteration (Figure 2)."""

from pathlib import Path

import numpy as np

from analysis.style import figure

MAX_CLASSES = 20
MAX_ITERATIONS = 12
GREY = 150.0  # of the cover over masked tokens
OPACITY = 0.8
CELL_INCHES = (0.6, 1.4)  # of one picture, small ones to large ones


def draw_samples(images: np.ndarray, class_names: np.ndarray, path: Path, dpi: int) -> None:
    """Draw one row of samples per class; of many classes, an even selection.

    Args:
        images: (classes, per_class, H, W, C) uint8.
        class_names: (classes,) str.
    """
    shown = _even_selection(len(images), MAX_CLASSES)
    names = [_shortened(str(class_names[i])) for i in shown]
    title = "Samples by class"
    if len(shown) < len(images):
        title += f" ({len(shown)} of {len(images)} classes)"
    _draw_grid(images[shown], path, dpi, title=title, row_labels=names)


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
    shown = _even_selection(len(images), MAX_ITERATIONS)
    labels = [f"t = {i + 1}" for i in shown]
    title = f"Decoding in T = {len(images)} iterations (grey: still masked)"
    _draw_grid(canvas[shown].swapaxes(0, 1), path, dpi, title=title, column_labels=labels)


def _even_selection(count: int, most: int) -> np.ndarray:
    """At most `most` indices below `count`, evenly spaced, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def _shortened(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _draw_grid(
    images: np.ndarray,
    path: Path,
    dpi: int,
    title: str,
    row_labels: list[str] | None = None,
    column_labels: list[str] | None = None,
) -> None:
    """Draw (rows, columns, H, W, C) uint8 as one mosaic with thin white gaps."""
    rows, columns, height, width, channels = images.shape
    gap = max(1, height // 16)
    mosaic = np.pad(
        images, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255
    ).swapaxes(1, 2)
    mosaic = mosaic.reshape(rows * (height + gap), columns * (width + gap), channels)
    mosaic = np.broadcast_to(mosaic[:-gap, :-gap], (*mosaic[:-gap, :-gap].shape[:2], 3))

    cell = float(np.clip(height / dpi, *CELL_INCHES))
    # The axes fill the figure exactly; labels lie outside it and saving grows to hold them.
    with figure(path, (columns * cell * width / height, rows * cell), dpi) as canvas:
        canvas.set_layout_engine("none")
        axes = canvas.add_axes((0, 0, 1, 1))
        axes.imshow(mosaic)
        axes.set_title(title, loc="left")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
        axes.set(xticks=[], yticks=[])
        if column_labels:
            axes.set_xticks(np.arange(columns) * (width + gap) + width / 2, column_labels)
        if row_labels:
            axes.set_yticks(np.arange(rows) * (height + gap) + height / 2, row_labels)
