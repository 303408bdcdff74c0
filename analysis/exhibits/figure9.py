"""Figure 9: what is rebuilt from a part of the tokens."""

from pathlib import Path

import numpy as np

from analysis.exhibits.base import Figure
from analysis.exhibits.formatting import percent
from analysis.exhibits.inputs.arrays import Arrays
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.mosaic import draw_mosaic
from pipeline.config.params import Params

MAX_IMAGES = 3


def pictures(results: Results, params: Params) -> Figure:
    """For each image the input, a sample and the median of samples, by mask ratio."""
    hidden = results.rebuilt["hidden"]
    return Figure(
        name="figure9",
        title="Figure 9: reconstructions by the share of masked tokens",
        alt="For each image three rows: the image with masked tokens greyed, one reconstruction, "
        "and the median of several, in a column for each mask ratio; the original on the left.",
        paper="below 90% masked the content is rebuilt consistently; at 95% pose and shape are, "
        "and details no more.",
        here=[
            f"From {percent(min(hidden))} to {percent(max(hidden))} of the tokens are masked; "
            "measured in Figure 10."
        ],
        draw=lambda path, dpi: _draw(results.rebuilt, path, dpi),
    )


def _draw(arrays: Arrays, path: Path, dpi: int) -> None:
    """originals (n, H, W, C); inputs, samples and medians (ratios, n, H, W, C), all uint8."""
    hidden, originals = arrays["hidden"], arrays["originals"][:MAX_IMAGES]
    kinds = {"input": "inputs", "sample": "samples", "median": "medians"}
    rows, empty = [], []
    for i, original in enumerate(originals):
        for name in kinds.values():
            rows.append(np.stack([original, *arrays[name][:, i]]))
            empty.append([name != "inputs"] + [False] * len(hidden))
    draw_mosaic(
        np.stack(rows),
        path,
        dpi,
        row_labels=list(kinds) * len(originals),
        column_labels=["original", *map(percent, hidden)],
        block=(len(kinds), len(hidden) + 1),
        empty=np.array(empty),
    )
