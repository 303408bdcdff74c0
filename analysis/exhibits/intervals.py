"""The one meaning of "±" in the tables: half of a 95% interval, and the heading says over what."""

import numpy as np
import pandas as pd

from analysis.exhibits.comparisons.inference import student
from analysis.exhibits.formatting import extent, number, spreads
from analysis.exhibits.inputs.metrics import LOWER_IS_BETTER, metric_label
from pipeline.config.params import Params

LOWER = (
    *LOWER_IS_BETTER,
    "perceptual",
)  # what the names of metrics of which less is better begin with


def seeds_of(seeds: pd.Series, params: Params) -> str:
    """What the seeds of a table repeat: "3 training seeds"; "" for one, which has no interval."""
    repeated = seeds[seeds > 0]  # without what has no seed, such as a floor
    if repeated.empty or repeated.max() < 2:
        return ""
    kind = "sampling" if params.transformer.pretrained else "training"
    return f"{extent(repeated)} {kind} seeds"


def counted_label(name: str, extractor: str, samples: pd.Series) -> str:
    """As `metric_label`; a plain FID carries the number of samples too, on which its bias depends:
    "FID (classifier) of 320 samples"."""
    label = metric_label(name, extractor)
    if name != f"fid_{extractor}" or samples.dropna().empty:
        return label
    return f"{label} of {extent(samples.dropna())} samples"


def heading(label: str, over: str) -> str:
    """A column's heading with what its ± is over, if it has one."""
    return f"{label}, ± 95% interval over {over}" if over else label


def column(
    cells: pd.DataFrame, metric: str, among: pd.Series | None = None, interval: bool = True
) -> list[str]:
    """ "mean ± half of the interval" of a metric, as `statistics.over_seeds` leaves it.

    Args:
        among: the rows that can be compared, of which the best mean is bold.
        interval: without it the mean alone.
    """
    means = cells[f"{metric}_mean"]
    texts = spreads(cells, metric, std="_ci95") if interval else [number(mean) for mean in means]
    if among is None:
        return texts
    means = means.where(among)
    best = means.min() if metric.startswith(LOWER) else means.max()
    tied = np.isclose(means, best, rtol=1e-9, atol=0)  # but for the rounding of a mean
    if tied.sum() == means.count():
        return texts
    return [f"**{text}**" if first else text for text, first in zip(texts, tied, strict=True)]


def of_one_set(rows: pd.DataFrame, metrics: list[str], halves: int) -> pd.DataFrame:
    """Single sets of images in the columns of `over_seeds`: the interval is over images, from the
    spread over so many random halves that the rows have of a metric, if any.

    FID∞ is FID less its bias, which hardly varies: it has the spread of FID.
    """
    quantile = student(halves)  # a standard deviation of so few is itself uncertain
    columns = {}
    for metric in metrics:
        spread = metric.replace("fid_infinity_", "fid_")
        columns[f"{metric}_mean"] = rows[metric]
        std = rows.get(f"{spread}_std", pd.Series(float("nan"), rows.index))
        columns[f"{metric}_std"] = std
        columns[f"{metric}_ci95"] = quantile * std.where(std > 0)  # equal halves prove nothing
    return pd.DataFrame(columns)
