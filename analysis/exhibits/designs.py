"""Decoding beyond the paper: the settings of `sweep.designs`, beside the paper's sampler."""

from functools import partial
from pathlib import Path

import pandas as pd

from analysis.exhibits import formatting as fmt
from analysis.exhibits.base import Figure, Table
from analysis.exhibits.drawing import (
    MORE_COLOURS,
    NARROW,
    figure,
    legend_place,
    log_steps,
    panels,
)
from analysis.exhibits.results import Results, measure_note
from analysis.exhibits.statistics import Effect, by_seed, holm, over_seeds, paired, pairs
from pipeline.config.params import Params

KINDS = ("fid", "precision", "recall", "class_accuracy")


def table(results: Results, params: Params) -> Table:
    """Every design, with its difference in FID from the paper's sampler at equal passes."""
    rows, settings = _rows(results, params)
    keys = ["schedule", *settings, "iterations", "passes"]
    cells = over_seeds(rows, keys, [results.metric(kind) for kind in KINDS])
    effects = [_effect(results, rows, cell, settings, params) for cell in cells.to_dict("records")]
    cells["difference"] = [effect.value for effect in effects]
    cells["p_value"] = holm([effect.p for effect in effects])
    over = fmt.seeds_of(cells["seeds"], params)
    readable = {name.replace("_", " "): cells[name].map(_text) for name in keys[:-2]}
    readable |= {"T": cells["iterations"].map(fmt.count), "passes": cells["passes"].map(fmt.count)}
    labels = {
        results.metric(kind): fmt.counted_label(
            results.metric(kind), results.extractor, rows["samples"]
        )
        for kind in KINDS
    }
    readable |= fmt.columns(cells, labels, over)
    readable["difference in FID"] = [fmt.number(effect.value) for effect in effects]
    readable["p"] = cells["p_value"].map(fmt.number)
    return Table(
        name="designs",
        title="Samplers and other decoding settings beyond the paper",
        cells=cells,
        readable=pd.DataFrame(readable),
        notes=[
            f"The sweep's models, {fmt.extent(rows['samples'])} samples a seed. Passes: how often "
            "the network is applied to an image, twice an iteration with guidance. Difference in "
            f"{results.label('fid')}: to the main settings with as many passes, paired by seed; p: "
            f"paired t, Holm over this table. {measure_note(params, results.extractor)}"
        ],
    )


def chart(results: Results, params: Params) -> Figure:
    """FID and recall against the passes, or against the number that the designs vary most."""
    fid, recall = results.label("fid"), results.label("recall")
    return Figure(
        name="designs",
        title=f"Beyond the paper: {fid} and {recall}",
        alt=f"Two charts with a curve for each way to decode: {fid} and {recall}.",
        draw=partial(_draw, results, params),
        chart=True,
    )


def _rows(results: Results, params: Params) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the designs and, of the models that they decode, the rows of the main settings
    with as many passes; and the names of the settings that vary, other than schedule and T."""
    designs, main = results.designs, params.decoding_settings()
    known = {*results.sweep.columns, "passes"}
    settings = [name for name in designs.columns if name not in known]
    twice = 2 if main.guidance_scale else 1
    own = results.sweep.assign(**{name: getattr(main, name) for name in settings})
    own["passes"] = twice * own["iterations"]
    own = own[own["schedule"].isin(designs["schedule"]) & own["passes"].isin(designs["passes"])]
    keys = ["schedule", "seed", *settings, "iterations"]
    return pd.concat([own, designs]).drop_duplicates(keys, ignore_index=True), settings


def _effect(
    results: Results, rows: pd.DataFrame, cell: dict, settings: list[str], params: Params
) -> Effect:
    """FID of a design minus FID of the main settings with as many passes."""
    main = params.decoding_settings()
    same = rows[(rows["schedule"] == cell["schedule"]) & (rows["passes"] == cell["passes"])]
    theirs = same[(same[settings] == [getattr(main, name) for name in settings]).all(axis=1)]
    ours = same[(same[settings] == [cell[name] for name in settings]).all(axis=1)]
    ours = ours[ours["iterations"] == cell["iterations"]]
    fid = results.metric("fid")
    return paired(*pairs(by_seed(ours, fid), by_seed(theirs, fid)))


def _text(value: object) -> str:
    return fmt.number(value) if isinstance(value, float) else str(value).replace("_", " ")


def _draw(results: Results, params: Params, path: Path, narrow: bool = False) -> None:
    rows, settings = _rows(results, params)
    numbers = rows[["passes", *settings]].select_dtypes("number").nunique()
    x = str(numbers.idxmax())
    keys = [name for name in ("schedule", *settings, "passes") if name != x]
    keys = [name for name in keys if rows[name].nunique() > 1] or keys[:1]
    kinds = {"fid": "lower", "recall": "higher"}
    cells = over_seeds(rows, [*keys, x], [results.metric(kind) for kind in kinds])
    with figure(path, (NARROW, 6.4) if narrow else (9.8, 3.7)) as canvas:
        for axes, (kind, direction) in zip(panels(canvas, narrow), kinds.items(), strict=True):
            for number, (names, line) in enumerate(cells.groupby(keys, sort=False)):
                label, metric = ", ".join(map(_text, names)), results.metric(kind)
                colour = MORE_COLOURS[number % len(MORE_COLOURS)]
                mean, half = line[f"{metric}_mean"], line[f"{metric}_std"].fillna(0)
                axes.plot(line[x], mean, "o-", color=colour, label=label)
                axes.fill_between(line[x], mean - half, mean + half, color=colour, alpha=0.1, lw=0)
            axes.set_ylabel(f"{results.label(kind)}, {direction} is better")
            axes.set_xlabel("passes of the network" if x == "passes" else x.replace("_", " "))
            if x == "passes":
                log_steps(axes, cells[x])
        lines, labels = axes.get_legend_handles_labels()
        canvas.legend(lines, labels, loc=legend_place(narrow), ncols=2 if narrow else 1)
