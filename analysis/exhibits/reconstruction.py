"""Reconstructions from part of the tokens (Figures 9 and 10), by the share of masked tokens."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.exhibits import paper
from analysis.exhibits.base import Figure, Table
from analysis.exhibits.claims import Claim, Part
from analysis.exhibits.drawing import BLUE, VERMILION, curve, draw_mosaic, panels
from analysis.exhibits.formatting import columns, count, percent, seeds_of
from analysis.exhibits.results import Arrays, Results
from analysis.exhibits.statistics import half_width, paired, student
from pipeline.config.params import Params

MEDIAN = -1  # value of `draw` in rows of the pixel-wise median over draws
METRICS = ("psnr", "perceptual")
KINDS = {"sample": BLUE, "median": VERMILION}
MAX_IMAGES = 3  # images in Figure 9


def claims(results: Results, params: Params) -> list[Claim]:
    """The claim that PSNR falls faster beyond a mask ratio of 90% than before. The fall from 90% to
    the next measured ratio is compared with the fall from the previous ratio to 90%, both per 10%
    of the tokens. (In a comparison with all earlier ratios, any bend would support the claim.)"""
    rows = results.reconstruction
    samples = rows[rows["draw"] != MEDIAN]
    psnr = samples.groupby(["seed", "mask_ratio"])["psnr"].mean().unstack().dropna(axis=1)
    hidden = samples.groupby("mask_ratio")["hidden"].mean()
    ratios, knee = sorted(psnr.columns), paper.KNEE
    parts, steps = [], []
    if knee in ratios[1:-1]:
        place = ratios.index(knee)
        before, beyond = ratios[place - 1 : place + 1], ratios[place : place + 2]
        # With few tokens, the hidden shares differ from the ratios, or are equal at two ratios.
        steps = [(psnr[a] - psnr[b], hidden[a], hidden[b]) for a, b in (beyond, before)]
    if steps and all(a < b for _, a, b in steps):
        falls = [fall / (b - a) / 10 for fall, a, b in steps]
        names = [f"from {a:.0%} to {b:.0%}" for _, a, b in steps]
        effect = paired(falls[0].to_numpy(), falls[1].to_numpy())
        parts.append(Part(effect, (falls[0].mean(), falls[1].mean()), sides=" and ".join(names)))
    return [
        Claim(
            said=f"reconstructions worsen sharply beyond {knee:.0%} of the tokens hidden",
            source="A, Figure 10",
            exhibit="figure10",
            shown_in="Figure 10",
            measure="dB lost for each 10% of the tokens",
            sign=1,
            parts=parts,
        )
    ]


def table(results: Results, params: Params) -> Table:
    """PSNR and perceptual distance of samples and of their pixel-wise median, by mask ratio."""
    cells = by_mask_ratio(results.reconstruction)
    labels = {"psnr": "PSNR (dB)", "perceptual": "perceptual distance"}
    labels = {
        f"{metric}_{kind}": f"{label}, {kind}" for metric, label in labels.items() for kind in KINDS
    }
    means = cells.rename(columns={name: f"{name}_mean" for name in labels})
    measured = columns(means, labels, seeds_of(cells["seeds"], params) or "images")
    images, draws = results.reconstruction["images"].max(), cells["draws"].max()
    return Table(
        name="reconstruction",
        title="Figure 10 in numbers: reconstructions from a part of the tokens",
        cells=cells,
        columns={"masked": cells["hidden"].map(percent), **measured},
        notes=[
            f"{count(images)} validation images, the same for all seeds, are decoded in T = "
            f"{params.reconstruction.iterations} iterations by a model that is told their class. "
            f"'Sample' is the mean over the {count(draws)} draws of each image; 'median' is the "
            "draws' pixel-wise median. The perceptual distance uses "
            f"{params.tokenizer.perceptual} features. If no token is masked, the sample is the "
            "tokenizer's own reconstruction."
        ],
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
        draw=partial(_draw, cells),
        chart=True,
    )


def by_mask_ratio(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per mask ratio: `seeds`, `draws` (per seed) and `hidden` (the share of masked
    tokens: the mask ratio, rounded to whole tokens). For both metrics (psnr, perceptual),
    `<metric>_sample` is the mean over draws and seeds, and `<metric>_median` the mean over seeds
    for the draws' median image. Each also has `_std` (standard deviation over images) and `_ci95`
    (half of the 95% interval: over seeds, or over images if every mask ratio has one seed)."""
    kinds = rows.assign(kind=np.where(rows["draw"] == MEDIAN, "median", "sample"))
    draws = rows[rows["draw"] != MEDIAN].groupby("mask_ratio")
    found = {"hidden": draws["hidden"].mean()}
    found |= {"seeds": draws["seed"].nunique(), "draws": draws["draw"].nunique()}
    images = rows.groupby("mask_ratio")["images"].max()
    for metric in METRICS:
        means = kinds.groupby(["kind", "mask_ratio", "seed"])[metric].mean()
        variances = (kinds[f"{metric}_std"] ** 2).groupby([kinds["kind"], kinds["mask_ratio"]])
        for kind in KINDS:
            name = f"{metric}_{kind}"
            seeds, std = means[kind].groupby("mask_ratio"), np.sqrt(variances.mean()[kind])
            found[name], found[f"{name}_std"] = seeds.mean(), std
            over_images = images.map(student) * std.where(std > 0) / np.sqrt(images - 1)
            several = found["seeds"].max() > 1
            found[f"{name}_ci95"] = seeds.apply(half_width) if several else over_images
    return pd.DataFrame(found).rename_axis("mask_ratio").reset_index()


def _draw(cells: pd.DataFrame, path: Path, narrow: bool = False) -> None:
    masked = 100 * cells["hidden"]
    labels = {"psnr": "PSNR, dB", "perceptual": "perceptual distance"}
    with panels(path, narrow, (8.8, 3.4), tall=6.6) as (drawn, legend):
        for axes, (metric, label) in zip(drawn, labels.items(), strict=True):
            for kind, colour in KINDS.items():
                mean, std = cells[f"{metric}_{kind}"], cells[f"{metric}_{kind}_std"]
                curve(axes, masked, mean, mean - std, mean + std, colour, 0.12, label=kind)
            axes.set(xlabel="tokens masked, in %", ylabel=label)
        legend["shaded: one standard\ndeviation over images"] = axes.plot([], [], " ")[0]


def pictures(results: Results, params: Params) -> Figure:
    """For each image: the input, a sample and the samples' median, by mask ratio (Figure 9)."""
    return Figure(
        name="figure9",
        title="Figure 9: reconstructions by the share of masked tokens",
        alt="For each image three rows: the image with masked tokens greyed, one reconstruction, "
        "and the median of several, in a column for each mask ratio; the original on the left.",
        paper="with less than 90% masked, the content is rebuilt consistently; at 95%, only pose "
        "and shape are, not details.",
        draw=partial(_draw_pictures, results.rebuilt),
    )


def _draw_pictures(arrays: Arrays, path: Path) -> None:
    """Draw `originals` (n, H, W, C), `inputs`, `samples` and `medians` (ratios, n, H, W, C)."""
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
        row_labels=list(kinds) * len(originals),
        column_labels=["original", *map(percent, hidden)],
        block=(len(kinds), len(hidden) + 1),
        empty=np.array(empty),
    )
