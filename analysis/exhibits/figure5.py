"""Figure 5: samples of both networks beside real images; and whether any are copies."""

from pathlib import Path

import numpy as np

from analysis.exhibits.base import Figure
from analysis.exhibits.formatting import count, listed, number, percent
from analysis.exhibits.inputs.arrays import Arrays
from analysis.exhibits.inputs.metrics import EXTRACTORS, MODELS
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.mosaic import draw_mosaic, even_selection, shortened
from pipeline.config.params import Params

MAX_CLASSES = 20
MANY, FEW = 10, 5  # pictures of a class, of one model alone or of several side by side
SHOWN = ("transformer", "autoregressive", "real")
ORDINALS = ("nearest", "2nd", "3rd")


def samples(results: Results, params: Params) -> Figure:
    """Samples of the main model, a row for each class."""
    grid = results.class_grid
    names = grid["class_names"]
    return Figure(
        name="samples",
        title=f"Samples of MaskGIT by class{_part(results)}",
        alt=f"Samples in rows, one for each of {len(names)} classes: "
        f"{listed(shortened(str(name)) for name in names[:MAX_CLASSES])}.",
        draw=lambda path, dpi: _draw_classes(results, ("transformer",), MANY, path, dpi),
    )


def comparison(results: Results, params: Params) -> Figure:
    """MaskGIT's samples, the baseline's and real images side by side, by class."""
    shares = [
        f"{percent(results.evaluation[name]['class_accuracy'])} ({MODELS[name]})"
        for name in ("transformer", "autoregressive", "real")
    ]
    return Figure(
        name="figure5",
        title=f"Figure 5: MaskGIT, VQGAN∗ and real images by class{_part(results)}",
        alt="Three blocks of pictures side by side, a row for each class: samples of MaskGIT, "
        "samples of VQGAN∗, real images.",
        paper="beside BigGAN-deep's samples and the training set, MaskGIT's are more diverse than "
        "those of BigGAN-deep.",
        here=[f"Share whose class the reference classifier recognises: {listed(shares)}."],
        draw=lambda path, dpi: _draw_classes(results, SHOWN, FEW, path, dpi),
    )


def neighbours(results: Results, params: Params) -> Figure:
    """The training images nearest to samples, in the extractor's features."""
    ours = results.evaluation["transformer"]
    name = f"nearest_distance_{results.extractor}"
    sampled, real = ours.get(name, float("nan")), ours.get(f"{name}_real", float("nan"))
    ratio = sampled / real if real else float("nan")
    arrays = results.neighbours
    features = EXTRACTORS.get(results.extractor, results.extractor)
    return Figure(
        name="neighbours",
        title="Samples and the training images nearest to them (left: distance)",
        alt="In each row a sample and the training images that are nearest to it.",
        here=[
            f"The mean distance to the nearest training image, in features of {features}, is "
            f"{number(sampled)} for MaskGIT's samples and {number(real)} for held-out real images: "
            f"a ratio of **{number(ratio)}**. Below 1 would hint at copies; decoded ones "
            "are not at 0, but as far from their images as the tokenizer's reconstructions."
        ],
        draw=lambda path, dpi: _draw_neighbours(arrays, path, dpi),
    )


def _part(results: Results) -> str:
    """How many of the classes are drawn, where it is not all of them."""
    shown, total = min(len(results.class_grid["class_names"]), MAX_CLASSES), results.data["classes"]
    return f" ({shown} of {count(total)} classes)" if shown < total else ""


def _draw_classes(
    results: Results, models: tuple[str, ...], most: int, path: Path, dpi: int
) -> None:
    grid = results.class_grid
    shown = even_selection(len(grid["class_names"]), MAX_CLASSES)
    each = min(most, *(grid[name].shape[1] for name in models))
    draw_mosaic(
        np.concatenate([grid[name][shown, :each] for name in models], axis=1),
        path,
        dpi,
        row_labels=[shortened(str(grid["class_names"][i])) for i in shown],
        column_labels=[MODELS[name] for name in models] if len(models) > 1 else [],
        block=(len(shown), each),
    )


def _draw_neighbours(arrays: Arrays, path: Path, dpi: int) -> None:
    samples, nearest, distance = arrays["samples"], arrays["nearest"], arrays["distance"]
    ranks = [ORDINALS[i] if i < len(ORDINALS) else f"{i + 1}th" for i in range(nearest.shape[1])]
    draw_mosaic(
        np.concatenate([samples[:, None], nearest], axis=1),
        path,
        dpi,
        row_labels=[number(d) for d in distance[:, 0]],
        column_labels=["sample", *ranks],
    )
