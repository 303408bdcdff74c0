"""Figure 10: reconstructions from a part of the tokens, against the share that is masked."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.exhibits import claims, intervals
from analysis.exhibits.base import Figure, Table
from analysis.exhibits.comparisons.inference import half_width, student
from analysis.exhibits.comparisons.samples import MEDIAN
from analysis.exhibits.formatting import count, number, percent, spreads
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.style import BLUE, NARROW, VERMILION, figure, legend_place, panels
from pipeline.config.params import Params

METRICS = ("psnr", "perceptual")
KINDS = {"sample": BLUE, "median": VERMILION}


def table(results: Results, params: Params) -> Table:
    """PSNR and perceptual distance of samples and of their median, by mask ratio."""
    cells = by_mask_ratio(results.reconstruction)
    over = intervals.seeds_of(cells["seeds"], params) or "images"
    labels = {"psnr": "PSNR (dB)", "perceptual": "perceptual distance"}
    readable = {"masked": cells["hidden"].map(percent)}
    for metric, label in labels.items():
        for kind in KINDS:
            heading = intervals.heading(f"{label}, {kind}", over)
            readable[heading] = spreads(cells, f"{metric}_{kind}", mean="", std="_ci95")
    images = results.reconstruction["images"].max()
    return Table(
        name="reconstruction",
        title="Figure 10 in numbers: reconstructions from a part of the tokens",
        cells=cells,
        readable=pd.DataFrame(readable),
        notes=[
            f"{count(images)} validation images, {_each(cells['draws'].max())}, decoded "
            f"in T = {params.reconstruction.iterations} by a model that is told their class; "
            "samples: mean over the draws; median: pixel by pixel over them. The images are the "
            "same for all seeds. The perceptual distance is of the "
            f"{params.tokenizer.perceptual} network. Where nothing is masked it is the tokenizer's "
            "own reconstruction."
        ],
        files=["reconstruction/rows.csv"],
    )


def chart(results: Results, params: Params) -> Figure:
    """PSNR and perceptual distance against the mask ratio."""
    cells = by_mask_ratio(results.reconstruction)
    return Figure(
        name="figure10",
        title="Figure 10: distance from the original against the share of masked tokens",
        alt="Two charts with two curves each, for samples and for their median: PSNR and "
        "perceptual distance from the original against the share of tokens that is masked.",
        paper="reconstructions keep pose and shape with most tokens masked; quality falls slowly "
        f"up to an inflection at about {percent(paper.KNEE)} masked, and steeply beyond it.",
        here=claims.sentences(results, params, "figure10") + _findings(cells),
        draw=lambda path, dpi: _draw(cells, path, dpi),
        narrow=lambda path, dpi: _draw(cells, path, dpi, narrow=True),
        chart=True,
    )


def by_mask_ratio(rows: pd.DataFrame) -> pd.DataFrame:
    """Samples pooled over draws, beside their median; both over seeds.

    Returns:
        Columns mask_ratio, hidden (the share that is, which of few tokens is not quite the ratio),
        seeds, draws (of a seed), and psnr and perceptual as `<metric>_sample`, `<metric>_median`
        and each of these with `_std` and `_ci95`. The stds are over images, the root of the mean
        variance. The ci95 is half of a 95% interval: over seeds, or over images where every mask
        ratio has one seed.
    """
    kinds = rows.assign(kind=np.where(rows["draw"] == MEDIAN, "median", "sample"))
    draws = rows[rows["draw"] != MEDIAN].groupby("mask_ratio")
    columns = {"hidden": draws["hidden"].mean()}
    columns |= {"seeds": draws["seed"].nunique(), "draws": draws["draw"].nunique()}
    for metric in METRICS:
        means = kinds.groupby(["kind", "mask_ratio", "seed"])[metric].mean()
        variances = (kinds[f"{metric}_std"] ** 2).groupby([kinds["kind"], kinds["mask_ratio"]])
        images = rows.groupby("mask_ratio")["images"].max()
        for kind in KINDS:
            name = f"{metric}_{kind}"
            if kind not in means.index:
                columns |= {name + end: float("nan") for end in ("", "_std", "_ci95")}
                continue
            seeds, std = means[kind].groupby("mask_ratio"), np.sqrt(variances.mean()[kind])
            columns[name], columns[f"{name}_std"] = seeds.mean(), std
            columns[f"{name}_ci95"] = (
                seeds.apply(half_width) if columns["seeds"].max() > 1 else _over_images(std, images)
            )
    return pd.DataFrame(columns).rename_axis("mask_ratio").reset_index()


def _each(draws: float) -> str:
    return f"{count(draws)} draws each" if draws > 1 else "one draw each"


def _over_images(std: pd.Series, images: pd.Series) -> pd.Series:
    """Half of the t interval (95%) of a mean over images, from their standard deviation (n); NaN
    where that is 0."""
    return images.map(student) * std.where(std > 0) / np.sqrt(images - 1)


def _findings(cells: pd.DataFrame) -> list[str]:
    first, last = cells.iloc[0], cells.iloc[-1]
    text = (
        f"PSNR of samples goes from {number(first['psnr_sample'])} dB with "
        f"{percent(first['hidden'])} masked to {number(last['psnr_sample'])} dB with "
        f"{percent(last['hidden'])}"
    )
    if len(cells) > 2 and last["psnr_sample"] < first["psnr_sample"]:
        steps = [
            ((a["psnr_sample"] - b["psnr_sample"]) / (b["hidden"] - a["hidden"]), a, b)
            for a, b in pairwise(cells.to_dict("records"))
            if a["hidden"] < b["hidden"]  # of few tokens as many may be, at two ratios
        ]
        slope, a, b = max(steps, key=lambda step: step[0])
        slowest = min(steps, key=lambda step: step[0])[0]
        text += (
            f", most steeply between {percent(a['hidden'])} and {percent(b['hidden'])}:"
            f" by {number(slope / 10)} dB for each 10% of the tokens, against "
            f"{number(slowest / 10)} dB where it falls least"
        )
    found = [f"{text}."]
    gain = (cells["psnr_median"] - cells["psnr_sample"])[cells["draws"] > 1].dropna()
    if len(gain) and gain.max() > 0:
        at = gain.idxmax()
        found.append(
            f"The median of the draws is closer to the original by up to {number(gain[at])} dB "
            f"(with {percent(cells.loc[at, 'hidden'])} masked)."
        )
    elif len(gain):
        found.append("The median of the draws is nowhere closer to the original than a draw.")
    return found


def _draw(cells: pd.DataFrame, path: Path, dpi: int, narrow: bool = False) -> None:
    masked = 100 * cells["hidden"]
    labels = {"psnr": "PSNR, dB", "perceptual": "perceptual distance"}
    with figure(path, (NARROW, 6.6) if narrow else (8.8, 3.4), dpi) as canvas:
        both = panels(canvas, narrow)
        for axes, metric in zip(both, METRICS, strict=True):
            for kind, colour in KINDS.items():
                mean, std = cells[f"{metric}_{kind}"], cells[f"{metric}_{kind}_std"]
                axes.fill_between(masked, mean - std, mean + std, color=colour, alpha=0.12, lw=0)
                axes.plot(masked, mean, "o-", color=colour, label=kind)
            axes.set_xlabel("tokens masked, in %")
            axes.set_ylabel(labels[metric])
        lines, names = axes.get_legend_handles_labels()
        lines += axes.plot([], [], " ")
        names += ["shaded: one standard\ndeviation over images"]
        canvas.legend(lines, names, loc=legend_place(narrow))
