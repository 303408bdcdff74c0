"""Figure 8: the mask schedules γ(r), and FID and IS against the iterations T."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.exhibits import claims
from analysis.exhibits.base import Figure
from analysis.exhibits.formatting import listed
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import metric_label, plain
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.inputs.sweep import CURVE_TOKENS, Sweep
from analysis.exhibits.statistics import (
    best_iterations,
    nested_best,
    schedule_order,
    summarize,
)
from analysis.exhibits.style import (
    NARROW,
    figure,
    legend_place,
    panels,
    plain_numbers,
    schedule_colours,
)
from pipeline.config.params import Params

EVERY = 3  # points of a curve from one that is drawn to the next


def schedules(results: Results, params: Params) -> Figure:
    """γ(r) of the sweep's schedules (left of the paper's Figure 8)."""
    return Figure(
        name="schedules",
        title=f"Figure 8, left: the mask schedules γ(r), N = {CURVE_TOKENS}",
        alt="Curves of the share of tokens that is masked, from 1 at the start of decoding to 0 at "
        "its end, one for each mask schedule.",
        draw=lambda path, dpi: _draw_schedules(results, path, dpi),
        narrow=lambda path, dpi: _draw_schedules(results, path, dpi, narrow=True),
        chart=True,
    )


def quality(results: Results, params: Params) -> Figure:
    """FID and IS against T, a line per schedule (right of the paper's Figure 8)."""
    sweep = results.sweep
    fid, is_ = (metric_label(sweep.column(kind), sweep.extractor) for kind in ("fid", "is"))
    return Figure(
        name="figure8",
        title=f"Figure 8, right: {fid} and {is_} against the iterations T",
        alt=f"Two charts with a curve for each mask schedule: {fid} and {is_} of samples by number "
        "of decoding iterations, each schedule's best marked with a star.",
        paper="more iterations are not necessarily better: every schedule but the logarithmic has "
        "a sweet spot, the earlier the more concave it is (cosine at 8 to 12).",
        here=claims.sentences(results, params, "figure8") + _facts(sweep, params.analysis.best_by),
        draw=lambda path, dpi: _draw_quality(sweep, path, dpi),
        narrow=lambda path, dpi: _draw_quality(sweep, path, dpi, narrow=True),
        chart=True,
    )


def _facts(sweep: Sweep, kind: str) -> list[str]:
    """The T's that are best for each schedule."""
    best = nested_best(sweep, kind)
    each = []
    for name, iterations in zip(best["schedule"], best["iterations"], strict=True):
        theirs = paper.TABLE_3.get(name)
        beside = f" (paper: {theirs.iterations})" if theirs else ""
        each.append(f"{name.replace('_', ' ')} {iterations.replace(', ', '/')}{beside}")
    label = metric_label(sweep.column(kind), sweep.extractor)
    by = "that another seed chooses for each" if best["seeds"].max() > 1 else "of one seed"
    return [f"The best T by {label}, {by}: {listed(each)}; tried were {_tried(sweep)}."]


def _tried(sweep: Sweep) -> str:
    return listed(str(steps) for steps in sorted(set(sweep.rows["iterations"])))


def _draw_schedules(results: Results, path: Path, dpi: int, narrow: bool = False) -> None:
    size, ncols = ((NARROW, 4.2), 2) if narrow else ((5.2, 3.4), 1)
    with figure(path, size, dpi) as canvas:
        axes = canvas.subplots()
        order = schedule_order(results.sweep.rows["schedule"])
        for name, colour in schedule_colours(order).items():
            if name in results.curves:
                curve = results.curves[name].iloc[::EVERY]
                axes.plot(curve["r"], curve["gamma"], color=colour, label=plain(name))
            else:  # swept once, removed from the code since: say so instead of failing
                axes.plot([], [], " ", label=f"({name}: not defined)")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.set_xlabel("progress of decoding r = t / T")
        axes.set_ylabel("mask ratio γ(r)")
        canvas.legend(loc=legend_place(narrow), ncols=ncols)


def _draw_quality(sweep: Sweep, path: Path, dpi: int, narrow: bool = False) -> None:
    summary = summarize(sweep)
    colours = schedule_colours(schedule_order(summary["schedule"]))
    with figure(path, (NARROW, 7.4) if narrow else (9.8, 3.7), dpi) as canvas:
        canvas.set_layout_engine("constrained", wspace=0.06, hspace=0.06)
        both = panels(canvas, narrow)
        for axes, kind in zip(both, ("fid", "is"), strict=True):
            best = best_iterations(summary, sweep, kind)
            _draw_metric(axes, summary, best, sweep.column(kind), colours)
            direction = "lower" if kind == "fid" else "higher"
            label = metric_label(sweep.column(kind), sweep.extractor)
            axes.set_ylabel(f"{label}, {direction} is better")
        lines, labels = axes.get_legend_handles_labels()
        lines += axes.plot([], [], "*", color="#666666", markersize=11, markeredgecolor="white")
        several = summary["seeds"].max() > 1
        spread = "shaded: one standard\ndeviation over seeds" if several else "one seed: no spread"
        lines += axes.plot([], [], " ")
        labels += ["best T of all seeds", spread]
        canvas.legend(lines, labels, loc=legend_place(narrow), ncols=2 if narrow else 1)


def _draw_metric(
    axes: Axes, summary: pd.DataFrame, best: pd.DataFrame, metric: str, colours: dict[str, str]
) -> None:
    means = summary[f"{metric}_mean"]
    logarithmic = means.min() > 0 and means.max() > 10 * means.min()
    # A log axis cannot show a band that reaches zero; it is cut below everything that is drawn.
    floor = means.min() / 2 if logarithmic else 0.0
    for name, colour in colours.items():
        cells = summary[summary["schedule"] == name]
        mean, std = cells[f"{metric}_mean"], cells[f"{metric}_std"]
        axes.plot(cells["iterations"], mean, "o-", color=colour, label=plain(name))
        low = np.maximum(mean - std, floor)
        axes.fill_between(cells["iterations"], low, mean + std, color=colour, alpha=0.15, lw=0)
    for row in best.to_dict("records"):
        axes.plot(
            row["iterations"],
            row[f"{metric}_mean"],
            "*",
            color=colours[row["schedule"]],
            markersize=13,
            markeredgecolor="white",
            markeredgewidth=0.8,
            zorder=4,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(set(summary["iterations"])))  # where the stars are
    axes.set_xticks([], minor=True)
    plain_numbers(axes.xaxis, logarithmic=False)
    axes.set_xlabel("iterations T")
    if logarithmic:
        axes.set_yscale("log")
    plain_numbers(axes.yaxis, logarithmic)
