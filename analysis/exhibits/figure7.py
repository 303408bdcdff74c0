"""Figure 7: outpainting with several seeds, and images extended to panoramas."""

import numpy as np

from analysis.exhibits.base import Figure
from analysis.exhibits.formatting import percent
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.mosaic import draw_mosaic
from pipeline.config.params import Params


def outpainting(results: Results, params: Params) -> Figure:
    """Half of each image, continued with several seeds."""
    images = results.edits["outpainting"]
    drawn = images[:, 1:].astype(float)
    seeds = drawn.shape[1]
    # Where no seed changes anything (the known half), there is nothing to differ in.
    deviation = drawn.std(axis=1).mean(axis=-1)
    differs = deviation > 0
    found = f"{seeds} {'seed' if seeds == 1 else 'seeds'} for each of {len(images)} images"
    if seeds > 1 and differs.any():
        found += (
            f"; where they differ, in {percent(differs.mean())} of the pixels, their standard "
            f"deviation is **{deviation[differs].mean():.3g} of 255 levels** on average"
        )
    return Figure(
        name="figure7",
        title="Figure 7: outpainting with several seeds (grey: unknown)",
        alt=f"In each row an image whose greyed part is continued with {seeds} seeds.",
        paper="the same input is continued in diverse and coherent ways.",
        here=[found + "."],
        draw=lambda path, dpi: draw_mosaic(
            images,
            path,
            dpi,
            column_labels=["input", *(f"seed {i + 1}" for i in range(seeds))],
        ),
    )


def panorama(results: Results, params: Params) -> Figure:
    """Images extended to both sides by sliding the window of the model over them."""
    images = results.edits["panorama"]
    side = results.edits["outpainting"].shape[-2]
    return Figure(
        name="panorama",
        title="Panoramas: images extended to the left and to the right",
        alt="Wide pictures, one above the other: each is an image extended to the left and right.",
        paper="images are extended far beyond their own size, though colours and meaning drift.",
        here=[
            f"{len(images)} images of {side} pixels are extended to {images.shape[2]} pixels, "
            f"**{images.shape[2] / side:.3g} times** their width."
        ],
        draw=lambda path, dpi: draw_mosaic(np.expand_dims(images, 1), path, dpi),
    )
