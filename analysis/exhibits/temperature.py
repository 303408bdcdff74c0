"""Sensitivity to the choice temperature, the scale of the noise on the confidence (section 3.2)."""

from pathlib import Path

import pandas as pd

from analysis.exhibits.base import Figure, Table
from analysis.exhibits.formatting import extent, percent, spread, spreads
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import measure_note, metric_label
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.statistics import over_seeds
from analysis.exhibits.style import BLUE, figure
from pipeline.config.params import Params


def table(results: Results, params: Params) -> Table:
    """FID, IS and recognised share of the main model by choice temperature."""
    cells, metrics = _means(results), _metrics(results)
    readable = {"choice temperature": cells["choice_temperature"].map("{:g}".format)}
    readable |= {metric_label(name, results.extractor): spreads(cells, name) for name in metrics}
    samples = extent(results.temperature["samples"])
    seeds = extent(cells["seeds"])
    over = f"mean ± sample standard deviation over {seeds} seeds" if seeds != "1" else "one seed"
    return Table(
        name="temperature",
        title="Choice temperature in numbers",
        cells=cells,
        readable=pd.DataFrame(readable),
        notes=[
            f"The main model at T = {params.decoding.iterations}, {samples} samples each; {over}. "
            + measure_note(params, results.extractor)
        ],
        files=["temperature/rows.csv"],
    )


def chart(results: Results, params: Params) -> Figure:
    """FID and IS against the choice temperature."""
    fid, is_ = (metric_label(name, results.extractor) for name in _metrics(results)[:2])
    return Figure(
        name="temperature",
        title=f"Choice temperature: {fid} and {is_}",
        alt=f"Two charts with a curve each: {fid} and {is_} of samples by choice temperature.",
        paper="noise on the confidence, annealed to none, encourages diversity; the paper does not "
        f"give its scale, the release has {paper.CHOICE_TEMPERATURE:g}.",
        here=_findings(_means(results), results, params),
        draw=lambda path, dpi: _draw(results, params, path, dpi),
        chart=True,
    )


def _metrics(results: Results) -> list[str]:
    return [results.metric("fid"), results.metric("is"), "class_accuracy"]


def _means(results: Results) -> pd.DataFrame:
    return over_seeds(results.temperature, ["choice_temperature"], _metrics(results))


def _findings(cells: pd.DataFrame, results: Results, params: Params) -> list[str]:
    fid = results.metric("fid")
    label = metric_label(fid, results.extractor)
    rows = cells.dropna(subset=f"{fid}_mean").sort_values(f"{fid}_mean", kind="stable")
    if rows.empty:
        return [f"{label}: the samples are too few for it."]
    best, worst = rows.iloc[0], rows.iloc[-1]

    def cell(row: pd.Series) -> str:
        return spread(row[f"{fid}_mean"], row[f"{fid}_std"])

    found = [
        f"{label} is best at **{best['choice_temperature']:g}** ({cell(best)}) and worst at "
        f"{worst['choice_temperature']:g} ({cell(worst)})."
    ]
    used = params.decoding.choice_temperature
    own = cells[cells["choice_temperature"] == used]
    if len(own):
        row = own.iloc[0]
        share = percent(row["class_accuracy_mean"])
        found.append(
            f"At {used:g}, which all else here uses, it is {cell(row)}, with {share} of samples "
            "recognised."
        )
    return found


def _draw(results: Results, params: Params, path: Path, dpi: int) -> None:
    cells, x = _means(results), "choice_temperature"
    with figure(path, (8.2, 3.2), dpi) as canvas:
        for axes, kind in zip(canvas.subplots(1, 2), ("fid", "is"), strict=True):
            metric = results.metric(kind)
            mean, std = cells[f"{metric}_mean"], cells[f"{metric}_std"].fillna(0)
            axes.fill_between(cells[x], mean - std, mean + std, color=BLUE, alpha=0.15, lw=0)
            axes.plot(cells[x], mean, "o-", color=BLUE)
            axes.axvline(params.decoding.choice_temperature, color="#999999", ls=":", lw=1)
            direction = "lower" if kind == "fid" else "higher"
            axes.set_ylabel(f"{metric_label(metric, results.extractor)}, {direction} is better")
            axes.set_xlabel("choice temperature (dotted: the one used elsewhere)")
