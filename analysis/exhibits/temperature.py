"""Sensitivity to the choice temperature, the scale of the noise on the confidence (section 3.2)."""

from functools import partial
from pathlib import Path

import pandas as pd

from analysis.exhibits import formatting as fmt
from analysis.exhibits import paper
from analysis.exhibits.base import Figure, Table
from analysis.exhibits.drawing import BLUE, curve, panels
from analysis.exhibits.results import MODELS, Results, measure_note
from analysis.exhibits.statistics import chosen_options, nested_choice, over_seeds, with_real_images
from pipeline.config.params import Params

KINDS = ("fid", "is", "class_accuracy")


def table(results: Results, params: Params) -> Table:
    """FID, IS and class accuracy of the main model, by choice temperature."""
    means, samples = _means(results), results.temperature["samples"]
    cells = with_real_images(means, results, samples.max(), {})
    values = cells["choice_temperature"].map(fmt.setting)
    metrics = [results.metric(kind) for kind in KINDS]
    labels = {name: fmt.counted_label(name, results.extractor, samples) for name in metrics}
    over = fmt.seeds_of(cells["seeds"], params)
    return Table(
        name="temperature",
        title="Choice temperature in numbers",
        cells=cells,
        columns={
            "choice temperature": values.replace(fmt.NONE, MODELS["real"]),
            **fmt.columns(cells, labels, over, cells["seeds"].notna()),
        },
        notes=[
            f"Means over {fmt.extent(means['seeds'])} seeds: the main model decodes "
            f"{fmt.extent(samples)} samples per seed at T = {params.decoding.iterations}. The real "
            f"images are in sets of that size. {measure_note(params, results.extractor)}"
        ],
    )


def chart(results: Results, params: Params) -> Figure:
    """FID and IS against the choice temperature."""
    fid, is_, option = results.label("fid"), results.label("is"), "choice_temperature"
    chosen, here = nested_choice(results.temperature, option, results.metric("fid")), []
    if len(chosen):
        by = "another seed" if len(chosen) > 1 else "the same samples"
        here.append(
            f"At the choice temperature that is best for {by} ({chosen_options(chosen, option)}), "
            f"{fid} is **{fmt.number(chosen[results.metric('fid')].mean())}**, on average over the "
            "seeds."
        )
    return Figure(
        name="temperature",
        title=f"Choice temperature: {fid} and {is_}",
        alt=f"Two charts with a curve each: {fid} and {is_} of samples by choice temperature.",
        paper="noise on the confidence, annealed to none, encourages diversity; the paper does not "
        f"give the noise's scale; the release uses {paper.CHOICE_TEMPERATURE:g}.",
        here=here,
        draw=partial(_draw, results, params),
        chart=True,
    )


def _means(results: Results) -> pd.DataFrame:
    metrics = [results.metric(kind) for kind in KINDS]
    return over_seeds(results.temperature, ["choice_temperature"], metrics)


def _draw(results: Results, params: Params, path: Path, narrow: bool = False) -> None:
    cells, seeds = _means(results), results.temperature["seed"].nunique()
    spread = "one standard\ndeviation over seeds" if seeds > 1 else "one seed: no spread"
    with panels(path, narrow, (9.4, 3.2), tall=6.4) as (drawn, legend):
        for axes, kind in zip(drawn, ("fid", "is"), strict=True):
            mean, std = (cells[f"{results.metric(kind)}_{end}"] for end in ("mean", "std"))
            band = curve(axes, cells["choice_temperature"], mean, mean - std, mean + std, BLUE)
            used = axes.axvline(params.decoding.choice_temperature, color="#999999", ls=":")
            axes.set(xlabel="choice temperature", ylabel=results.axis(kind))
        legend |= {"used elsewhere": used, spread: band}
