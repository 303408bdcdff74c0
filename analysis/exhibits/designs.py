"""Experiments beyond the paper, with the settings that params.yaml lists in `sweep.designs`."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.exhibits import formatting as fmt
from analysis.exhibits.base import Figure, Table
from analysis.exhibits.claims import SWEPT, Claim, Part
from analysis.exhibits.drawing import COLOURS, MORE_COLOURS, curve, log_steps, panels
from analysis.exhibits.results import Results, measure_note
from analysis.exhibits.statistics import NAN, holm, nested_choice, over_seeds, paired, slope
from pipeline.config.params import Params

KINDS = ("fid", "precision", "recall", "class_accuracy")


def claims(results: Results, params: Params) -> list[Claim]:
    """The claim that cosine overtakes exponential in longer training, if training steps vary."""
    gaps = _gaps(results, params)
    if len(gaps.columns) < 2:
        return []
    first, last = gaps.iloc[:, 0], gaps.iloc[:, -1]
    return [
        Claim(
            said="cosine overtakes exponential in longer training",
            exhibit="designs-table",
            shown_in="designs in numbers",
            measure=f"{results.label('fid')}, log of the ratio of exponential to cosine",
            sign=1,
            parts=[
                Part(paired(0 * first, first), kind=f"reversed, after {first.name:,} steps"),
                Part(slope(gaps, first.name, degree=1), kind="change per doubling of the steps"),
                Part(paired(last, 0 * last), kind=f"after {last.name:,} steps"),
            ],
            networks=(SWEPT,),
            fewest=3,  # another seed chooses each seed's T
        )
    ]


def _gaps(results: Results, params: Params) -> pd.DataFrame:
    """log FID of exponential minus log FID of cosine: a row per seed, a column per number of
    training steps. Each seed's T is the best one for another seed. All models must have this T."""
    (rows, main), fid, model = _rows(results, params), results.metric("fid"), ["schedule", "steps"]
    if main.pop("steps", None) is None:
        return pd.DataFrame()
    rows = rows[_has(rows, main) & rows["schedule"].isin(["exponential", "cosine"])]
    shared = rows.pivot(index="iterations", columns=[*model, "seed"], values=fid).dropna().index
    models = rows[rows["iterations"].isin(shared)].groupby(model)
    if rows["schedule"].nunique() < 2 or shared.empty:
        return pd.DataFrame()
    best = pd.concat([nested_choice(each, "iterations", fid) for _, each in models])
    logs = np.log(best.pivot(index="seed", columns=model, values=fid)).sort_index(axis=1)
    return (logs["exponential"] - logs["cosine"]).dropna(axis=1)


def table(results: Results, params: Params) -> Table:
    """A row per setting and T of `sweep.designs`, and rows of the main settings for comparison."""
    rows, settings = _rows(results, params)
    keys = ["schedule", *settings, "iterations", "passes"]
    metrics, samples = [results.metric(kind) for kind in KINDS], rows["samples"]
    cells = over_seeds(rows, keys, metrics)
    both = [cell[[metrics[0], "main"]].dropna() for _, cell in rows.groupby(keys, dropna=False)]
    effects = [paired(*cell.to_numpy().T) for cell in both]
    cells["difference"] = [effect.value for effect in effects]
    cells["p_value"] = holm([effect.p for effect in effects])
    labels = {name: fmt.counted_label(name, results.extractor, samples) for name in metrics}
    return Table(
        name="designs",
        title="Samplers, other decoding settings and training steps beyond the paper",
        cells=cells,
        columns={
            **{name.replace("_", " "): cells[name].map(fmt.setting) for name in keys[:-2]},
            "T": cells["iterations"].map(fmt.count),
            "passes": cells["passes"].map(fmt.count),
            **fmt.columns(cells, labels, fmt.seeds_of(cells["seeds"], params)),
            f"difference in {results.label('fid')}": cells["difference"].map(fmt.number),
            "p": cells["p_value"].map(fmt.number),
        },
        notes=[
            f"The sweep's models, {fmt.extent(samples)} samples a seed. Passes: how often the "
            "network is applied to an image, twice an iteration with guidance. Difference in "
            f"{results.label('fid')}: to the main settings with as many passes, paired by seed; p: "
            f"paired t, Holm over this table. {measure_note(params, results.extractor)}"
        ],
    )


def chart(results: Results, params: Params) -> Figure:
    """FID and recall against forward passes, or against a setting that takes more values."""
    fid, recall = results.label("fid"), results.label("recall")
    return Figure(
        name="designs",
        title=f"Beyond the paper: {fid} and {recall}",
        alt=f"Two charts with a curve for each setting: {fid} and {recall}.",
        draw=partial(_draw, results, params),
        chart=True,
    )


def _rows(results: Results, params: Params) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return a table and a dict. The dict maps each setting that `sweep.designs` varies, except
    schedule and T, to its main value in params.yaml. The table has the rows of `sweep.designs`, and
    those of the main sweep with the same schedules and numbers of forward passes. Its column `main`
    is the FID at the main values, for the row's schedule, seed and number of passes."""
    designs, settings = results.designs, params.decoding_settings()
    values = asdict(settings) | {"steps": params.sweep.steps}
    names = [name for name in designs if name not in {*results.sweep, "passes"}]
    main = {name: NAN if values[name] is None else values[name] for name in names}
    passes = results.sweep["iterations"].map(lambda t: replace(settings, iterations=t).passes)
    own = results.sweep.assign(**main, passes=passes)
    own = own[own["schedule"].isin(designs["schedule"]) & own["passes"].isin(designs["passes"])]
    rows = pd.concat([own, designs])
    rows = rows.drop_duplicates(["schedule", "seed", *main, "iterations"], ignore_index=True)
    model = ["schedule", "passes", "seed"]
    theirs = rows[_has(rows, main)].groupby(model)[results.metric("fid")].mean()
    return rows.join(theirs.rename("main"), on=model), main


def _has(rows: pd.DataFrame, values: dict[str, Any]) -> pd.Series:
    """Whether each row has these values; None and NaN are equal."""
    return pd.DataFrame({k: rows[k].isin([v]) for k, v in values.items()}, rows.index).all(axis=1)


def _draw(results: Results, params: Params, path: Path, narrow: bool = False) -> None:
    rows, settings = _rows(results, params)
    x = str(rows[["passes", *settings]].select_dtypes("number").nunique().idxmax())
    keys = [name for name in ("schedule", *settings, "passes") if name != x]
    keys = [name for name in keys if rows[name].nunique() > 1] or keys[:1]
    kinds, colours = ("fid", "recall"), [*COLOURS.values(), *MORE_COLOURS]
    cells = over_seeds(rows, [*keys, x], [results.metric(kind) for kind in kinds])
    with panels(path, narrow, (9.8, 3.7), tall=6.4, ncols=2) as (drawn, _):
        for axes, kind in zip(drawn, kinds, strict=True):
            for number, (names, line) in enumerate(cells.groupby(keys, sort=False, dropna=False)):
                named = zip(keys, map(fmt.setting, names), strict=True)
                said = [f"{key} {each}" if each[0].isdigit() else each for key, each in named]
                mean, std = (line[f"{results.metric(kind)}_{end}"] for end in ("mean", "std"))
                look = colours[number % len(colours)], 0.1  # colour, opacity of the band
                curve(axes, line[x], mean, mean - std, mean + std, *look, label=", ".join(said))
            axes.set(xlabel=x.replace("_", " "), ylabel=results.axis(kind))
            if x == "passes":
                axes.set_xlabel("passes of the network")
                log_steps(axes, cells[x])
