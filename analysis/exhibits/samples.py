"""Pictures of samples: by class beside real images (Figure 5), after each iteration of decoding
(Figure 2), and beside the nearest training images."""

from functools import partial
from pathlib import Path

import numpy as np

from analysis.exhibits.base import Figure
from analysis.exhibits.drawing import draw_mosaic, even_selection, shortened
from analysis.exhibits.formatting import count, listed, number
from analysis.exhibits.results import EXTRACTORS, MODELS, Arrays, Results
from pipeline.config.params import Params

MAX_CLASSES = 20
MANY, FEW = 10, 5  # maximum pictures per class: for one model, or for each of several
OPENING = (2, 10)  # maximum pictures per class, and classes, in the report's opening
SHOWN = ("transformer", "autoregressive", "real")
ORDINALS = ("nearest", "2nd", "3rd")
MAX_ITERATIONS = 12
GREY = 150.0  # grey level of the cover over masked tokens
OPACITY = 0.8


def by_class(results: Results, params: Params) -> Figure:
    """Samples of MaskGIT, a row for each class."""
    names = results.class_grid["class_names"]
    return Figure(
        name="samples",
        title=f"Samples of MaskGIT by class{_part(results)}",
        alt=f"Samples in rows, one for each of {len(names)} classes: "
        f"{listed(shortened(str(name)) for name in names[:MAX_CLASSES])}.",
        draw=partial(_draw_classes, results.class_grid, ("transformer",), MANY),
    )


def opening(results: Results, params: Params) -> Figure:
    """A few samples per class, one column for each class, for the report's opening."""
    names, images = results.class_grid["class_names"], results.class_grid["transformer"]
    each, classes = OPENING
    shown = even_selection(len(names), classes)
    labels = [shortened(str(names[i])) for i in shown]
    return Figure(
        name="opening",
        title="Samples of MaskGIT by class",
        alt=f"Samples in columns, one for each of these classes: {listed(labels)}.",
        draw=partial(draw_mosaic, images[shown, :each].swapaxes(0, 1), column_labels=labels),
    )


def comparison(results: Results, params: Params) -> Figure:
    """MaskGIT's samples, the baseline's and real images side by side, by class (Figure 5)."""
    return Figure(
        name="figure5",
        title=f"Figure 5: MaskGIT, VQGAN∗ and real images by class{_part(results)}",
        alt="Three blocks of pictures side by side, a row for each class: samples of MaskGIT, "
        "samples of VQGAN∗, real images.",
        paper="MaskGIT's samples, shown beside BigGAN-deep's and the training set, are more "
        "diverse than BigGAN-deep's.",
        draw=partial(_draw_classes, results.class_grid, SHOWN, FEW),
    )


def _part(results: Results) -> str:
    """The number of drawn classes, for a title; empty if all classes are drawn."""
    shown, total = min(len(results.class_grid["class_names"]), MAX_CLASSES), results.data["classes"]
    return f" ({shown} of {count(total)} classes)" if shown < total else ""


def _draw_classes(grid: Arrays, models: tuple[str, ...], most: int, path: Path) -> None:
    shown = even_selection(len(grid["class_names"]), MAX_CLASSES)
    each = min(most, *(grid[name].shape[1] for name in models))
    draw_mosaic(
        np.concatenate([grid[name][shown, :each] for name in models], axis=1),
        path,
        row_labels=[shortened(str(grid["class_names"][i])) for i in shown],
        column_labels=[MODELS[name] for name in models] if len(models) > 1 else [],
        block=(len(shown), each),
    )


def neighbours(results: Results, params: Params) -> Figure:
    """The training images nearest to samples in the extractor's feature space."""
    ours, extractor = results.evaluation["transformer"], results.extractor
    name = f"nearest_distance_{extractor}"
    sampled, real = ours.get(name, float("nan")), ours.get(f"{name}_real", float("nan"))
    ratio = sampled / real if real else float("nan")
    return Figure(
        name="neighbours",
        title="Samples and the training images nearest to them (left: distance to the nearest)",
        alt="In each row a sample and the training images that are nearest to it.",
        here=[
            "The mean distance to the nearest training image, in features of "
            f"{EXTRACTORS.get(extractor, extractor)}, is "
            f"{number(sampled)} for MaskGIT's samples and {number(real)} for held-out real images: "
            f"a ratio of **{number(ratio)}**. A ratio below 1 would hint at copied images."
        ],
        draw=partial(_draw_neighbours, results.neighbours),
    )


def _draw_neighbours(arrays: Arrays, path: Path) -> None:
    samples, nearest, distance = arrays["samples"], arrays["nearest"], arrays["distance"]
    ranks = [ORDINALS[i] if i < len(ORDINALS) else f"{i + 1}th" for i in range(nearest.shape[1])]
    draw_mosaic(
        np.concatenate([samples[:, None], nearest], axis=1),
        path,
        row_labels=[number(d) for d in distance[:, 0]],
        column_labels=["sample", *ranks],
    )


def iterations(results: Results, params: Params) -> Figure:
    """The samples after each iteration, with grey over tokens that are still masked (Figure 2)."""
    images, masked = results.decoding["images"], results.decoding["masked"]
    return Figure(
        name="figure2",
        title=f"Figure 2: decoding in T = {len(images)} iterations (grey: still masked)",
        alt="A row of pictures for each sample: the canvas after each iteration. The grey tokens, "
        "which are still masked, become fewer until none is left.",
        paper="all tokens are predicted at once, the most confident ones are kept, and within a "
        "few iterations the image is done; VQGAN needs one iteration per token.",
        draw=partial(draw_decoding, images, masked),
    )


def draw_decoding(images: np.ndarray, masked: np.ndarray, path: Path) -> None:
    """Draw the canvas after each iteration, images (T, n, H, W, C) uint8, with grey over masked
    tokens, (T, n, h, w) bool. The last mask is ignored: the result has no masked tokens."""
    unknown = masked.copy()
    unknown[-1] = False
    # The nearest token of each pixel.
    rows = np.arange(images.shape[2]) * masked.shape[2] // images.shape[2]
    columns = np.arange(images.shape[3]) * masked.shape[3] // images.shape[3]
    cover = OPACITY * unknown[:, :, rows[:, None], columns, None]
    canvas = (images * (1 - cover) + GREY * cover).round().astype(np.uint8)
    shown = even_selection(len(images), MAX_ITERATIONS)
    labels = [f"t = {i + 1}" for i in shown]
    draw_mosaic(canvas[shown].swapaxes(0, 1), path, column_labels=labels)
