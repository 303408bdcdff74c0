"""Figure 10: reconstructions from a part of the tokens, against the share that is masked."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.exhibits.base import Figure, Table
from analysis.exhibits.formatting import count, number, percent, spreads
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.style import BLUE, VERMILION, figure
from pipeline.config.params import Params

MEDIAN = -1  # `draw` of the pixel-wise median over draws
METRICS = ("psnr", "perceptual")
KINDS = {"sample": BLUE, "median": VERMILION}


def table(results: Results, params: Params) -> Table:
    """PSNR and perceptual distance of samples and of their median, by mask ratio."""
    cells = by_mask_ratio(results.reconstruction)
    labels = {"psnr": "PSNR (dB)", "perceptual": "perceptual distance"}
    readable = {"masked": cells["mask_ratio"].map(percent)}
    for metric, label in labels.items():
        for kind in KINDS:
            readable[f"{label}, {kind}"] = spreads(cells, f"{metric}_{kind}", mean="")
    images = results.reconstruction["images"].max()
    return Table(
        name="reconstruction",
        title="Figure 10 in numbers: reconstructions from a part of the tokens",
        cells=cells,
        readable=pd.DataFrame(readable),
        notes=[
            f"{count(images)} validation images, {count(cells['draws'].max())} draws each, decoded "
            f"in T = {params.reconstruction.iterations}; samples: mean over the draws; median: "
            "pixel by pixel over the draws. ± : standard deviation over images. The perceptual "
            f"distance is of the {params.tokenizer.perceptual} network. Where nothing is masked it "
            "is the tokenizer's own reconstruction."
        ],
        files=["reconstruction/rows.csv"],
    )


def chart(results: Results, params: Params) -> Figure:
    """PSNR and perceptual distance against the mask ratio."""
    cells = by_mask_ratio(results.reconstruction)
    return Figure(
        name="figure10",
        title="Figure 10: distance from the original against the share of masked tokens",
        alt="Two charts with two curves each, for samples and for their median: PSNR falls and "
        "perceptual distance rises with the share of tokens that is masked.",
        paper="reconstructions keep pose and shape with most tokens masked; quality falls slowly "
        f"up to an inflection at about {percent(paper.KNEE)} masked, and steeply beyond it.",
        here=_findings(cells),
        draw=lambda path, dpi: _draw(cells, params.tokenizer.perceptual, path, dpi),
        chart=True,
    )


def by_mask_ratio(rows: pd.DataFrame) -> pd.DataFrame:
    """Samples pooled over draws, beside their median.

    Returns:
        Columns mask_ratio, draws, and psnr and perceptual as `<metric>_sample`,
        `<metric>_sample_std`, `<metric>_median` and `<metric>_median_std`; the stds are over
        images, that of the samples the root of the draws' mean variance.
    """
    samples = rows[rows["draw"] != MEDIAN].groupby("mask_ratio")
    medians = rows[rows["draw"] == MEDIAN].set_index("mask_ratio")
    columns = {"draws": samples.size()}
    for metric in METRICS:
        columns[f"{metric}_sample"] = samples[metric].mean()
        variance = samples[f"{metric}_std"].apply(lambda std: (std**2).mean())
        columns[f"{metric}_sample_std"] = np.sqrt(variance)
        columns[f"{metric}_median"] = medians[metric]
        columns[f"{metric}_median_std"] = medians[f"{metric}_std"]
    return pd.DataFrame(columns).rename_axis("mask_ratio").reset_index()


def _findings(cells: pd.DataFrame) -> list[str]:
    first, last = cells.iloc[0], cells.iloc[-1]
    text = (
        f"PSNR of samples goes from {number(first['psnr_sample'])} dB with "
        f"{percent(first['mask_ratio'])} masked to {number(last['psnr_sample'])} dB with "
        f"{percent(last['mask_ratio'])}"
    )
    if len(cells) > 2:
        steps = [
            ((a["psnr_sample"] - b["psnr_sample"]) / (b["mask_ratio"] - a["mask_ratio"]), a, b)
            for a, b in pairwise(cells.to_dict("records"))
        ]
        slope, a, b = max(steps, key=lambda step: step[0])
        slowest = min(steps, key=lambda step: step[0])[0]
        text += (
            f", **most steeply between {percent(a['mask_ratio'])} and {percent(b['mask_ratio'])}**:"
            f" by {number(slope / 10)} dB for each 10% of the tokens, against "
            f"{number(slowest / 10)} dB where it falls least"
        )
    found = [f"{text}."]
    gain = (cells["psnr_median"] - cells["psnr_sample"]).dropna()
    if len(gain):
        at = gain.idxmax()
        found.append(
            f"The median of the draws is closer to the original by up to {number(gain[at])} dB "
            f"(with {percent(cells.loc[at, 'mask_ratio'])} masked)."
        )
    return found


def _draw(cells: pd.DataFrame, network: str, path: Path, dpi: int) -> None:
    masked = 100 * cells["mask_ratio"]
    labels = {
        "psnr": "PSNR in dB, higher is closer",
        "perceptual": f"perceptual distance ({network}), lower is closer",
    }
    with figure(path, (8.8, 3.4), dpi) as canvas:
        for axes, metric in zip(canvas.subplots(1, 2), METRICS, strict=True):
            for kind, colour in KINDS.items():
                mean, std = cells[f"{metric}_{kind}"], cells[f"{metric}_{kind}_std"]
                axes.fill_between(masked, mean - std, mean + std, color=colour, alpha=0.12, lw=0)
                axes.plot(masked, mean, "o-", color=colour, label=kind)
            axes.set_xlabel("tokens masked, in %")
            axes.set_ylabel(labels[metric])
        lines, names = axes.get_legend_handles_labels()
        lines += axes.plot([], [], " ")
        names += ["shaded: ± std\nover images"]
        canvas.legend(lines, names, loc="outside right center")
