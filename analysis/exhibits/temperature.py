"""Sensitivity to the choice temperature (section 3.2), and to the baseline's sampling settings."""

from functools import partial
from pathlib import Path

import pandas as pd

from analysis.exhibits import formatting as fmt
from analysis.exhibits import paper
from analysis.exhibits.base import Figure, Table
from analysis.exhibits.drawing import BLUE, curve, panels
from analysis.exhibits.results import MODELS, Results, measure_note
from analysis.exhibits.statistics import nested_choice, over_seeds, with_real_images
from pipeline.config.params import Params

KINDS = ("fid", "is", "class_accuracy")


def table(results: Results, params: Params) -> Table:
    """FID, IS and class accuracy of MaskGIT, VQGAN∗ and real images, by sampling setting."""
    means, samples = _means(results.temperature, results), results.temperature["samples"]
    cells = with_real_images(means, results, samples.max(), {"images": "real"})
    metrics = [results.metric(kind) for kind in KINDS]
    labels = {name: fmt.counted_label(name, results.extractor, samples) for name in metrics}
    over = fmt.seeds_of(cells["seeds"], params)
    return Table(
        name="temperature",
        title="Choice temperature in numbers",
        cells=cells,
        columns={
            "images": cells["images"].map(MODELS),
            "sampling setting": cells["setting"].map(fmt.setting),
            **fmt.columns(cells, labels, over, cells["seeds"].notna()),
        },
        notes=[
            f"Means over {fmt.extent(means['seeds'])} seeds, {fmt.extent(samples)} samples each. "
            f"MaskGIT decodes at T = {params.decoding.iterations}. The real images are in sets of "
            f"that size. {measure_note(params, results.extractor)}"
        ],
    )


def chart(results: Results, params: Params) -> Figure:
    """FID and IS against the choice temperature."""
    fid, is_, here = results.label("fid"), results.label("is"), []
    for network, rows in results.temperature.groupby("images", sort=False):
        chosen = nested_choice(rows, "setting", results.metric("fid"))
        if len(chosen):
            by = "another seed" if len(chosen) > 1 else "the same samples"
            here.append(
                f"{MODELS[network]}, with the sampling setting that is best for {by}: mean {fid} "
                f"**{fmt.number(chosen[results.metric('fid')].mean())}** "
                f"({'; '.join(chosen['setting'].map(fmt.setting).unique())})."
            )
    return Figure(
        name="temperature",
        title=f"Choice temperature: {fid} and {is_}",
        alt=f"Two charts with a curve each: {fid} and {is_} of samples by choice temperature.",
        paper="noise on the confidence, annealed to none, encourages diversity; the paper does not "
        f"give the noise's scale; the authors' code uses {paper.CHOICE_TEMPERATURE:g}.",
        here=here,
        draw=partial(_draw, results, params),
        chart=True,
    )


def _means(rows: pd.DataFrame, results: Results) -> pd.DataFrame:
    keys = ["choice_temperature", "images", "setting"]
    return over_seeds(rows, keys, [results.metric(kind) for kind in KINDS])


def _draw(results: Results, params: Params, path: Path, narrow: bool = False) -> None:
    cells = _means(results.temperature.dropna(subset="choice_temperature"), results)
    several = cells["seeds"].max() > 1
    spread = "one standard\ndeviation over seeds" if several else "one seed: no spread"
    with panels(path, narrow, (9.4, 3.2), tall=6.4) as (drawn, legend):
        for axes, kind in zip(drawn, ("fid", "is"), strict=True):
            mean, std = (cells[f"{results.metric(kind)}_{end}"] for end in ("mean", "std"))
            band = curve(axes, cells["choice_temperature"], mean, mean - std, mean + std, BLUE)
            used = axes.axvline(params.decoding.choice_temperature, color="#999999", ls=":")
            axes.set(xlabel="choice temperature", ylabel=results.axis(kind))
        legend |= {"used elsewhere": used, spread: band}
