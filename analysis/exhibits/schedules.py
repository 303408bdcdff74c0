"""Mask schedules and numbers of iterations (section 4.4: Table 3 and Figure 8), and crossed
schedules: training with one schedule, decoding with another. The paper uses one for both."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.exhibits import formatting as fmt
from analysis.exhibits import paper
from analysis.exhibits import statistics as stats
from analysis.exhibits.base import Figure, Table
from analysis.exhibits.claims import HYPOTHESIS, RATIO, RHO, SWEPT, Claim, Part
from analysis.exhibits.drawing import curve, log_steps, panels, plain_numbers, schedule_colours
from analysis.exhibits.results import (
    CURVE_TOKENS,
    LOWER_IS_BETTER,
    MODELS,
    SWEEP_METRICS,
    Results,
    measure_note,
)
from pipeline.config.params import Params

# The paper's three families (section 3.3); the third is linear.
CONCAVE = ("exponential", "cubic", "square", "cosine")
CONVEX = ("square_root", "logarithmic")
CHOOSING = 3  # fewest seeds for a test if another seed chooses each seed's T (docs/metrics.md)
REAL_IMAGES = {"schedule": MODELS["real"]}  # in place of a schedule's name, in tables
EVERY = 3  # every third point of a curve is drawn


def claims(results: Results, params: Params) -> list[Claim]:
    """Claims about the best schedule, the best T, and the schedules of training and of decoding."""
    claim = partial(Claim, networks=(SWEPT,))
    of_table3 = partial(claim, exhibit="table3-table", shown_in="Table 3", fewest=CHOOSING)
    return [
        *_families(results, partial(of_table3, source="4.4, Table 3")),
        *_over_iterations(results, params.training.mask_schedule, claim),
        *_orders(results, partial(of_table3, source="4.4, Table 3")),
        *_crossed(results, claim),
    ]


def at_best_iterations(results: Results) -> pd.DataFrame:
    """One row of the sweep per schedule and seed: that of the T with another seed's best FID."""
    fid = results.metric("fid")
    groups = results.sweep.groupby("schedule")
    chosen = [stats.nested_choice(rows, "iterations", fid) for _, rows in groups]
    return pd.concat(chosen, ignore_index=True)


def _best_values(results: Results, kind: str) -> pd.DataFrame:
    """A metric at the T chosen by `at_best_iterations`: a row per seed, a column per schedule."""
    best = at_best_iterations(results)
    return best.pivot(index="seed", columns="schedule", values=results.metric(kind)).dropna()


def _families(results: Results, claim: "partial[Claim]") -> list[Claim]:
    """Four claims: cosine beats every other schedule; cosine beats linear and convex schedules;
    concave schedules beat linear; linear beats convex schedules."""
    logs = np.log(_best_values(results, "fid"))
    best, names, linear = paper.BEST_SCHEDULE, tuple(paper.TABLE_3), ["linear"]
    known, against = logs if best in logs else (), partial(_against, logs)
    rivals = {fmt.setting(name): [name] for name in names if name != best}
    others = {"linear": linear, "convex schedules": CONVEX}
    beats_all, beats_others = (
        [part for name in each for part in against([best], each[name], f"{best} and {name}")]
        for each in (rivals, others)
    )
    found = {
        f"{best} is the best of the schedules{_partly(names, known)}": beats_all,
        f"{best} is better than linear and convex schedules{_partly(CONVEX, known)}": beats_others,
        f"concave schedules{_partly(CONCAVE, logs)} are better than linear": against(
            CONCAVE, linear
        ),
        f"linear is better than convex schedules{_partly(CONVEX, logs)}": against(linear, CONVEX),
    }
    measure = results.label("fid")
    return [claim(said=said, measure=measure, sign=-1, parts=found[said]) for said in found]


def _against(
    logs: pd.DataFrame, ours: Iterable[str], theirs: Iterable[str], sides: str = ""
) -> list[Part]:
    """Compare log FID (a row per seed, a column per schedule) of two families of schedules. Returns
    one comparison in a list, or an empty list if a family was not swept."""
    first, second = (_found(family, logs) for family in (ours, theirs))
    if not first or not second or logs.empty:
        return []
    means = tuple(math.exp(logs[names].mean(axis=None)) for names in (first, second))
    return [Part(stats.contrast(logs, first, second), means, sides, RATIO)]


def _found(family: Iterable[str], among: Iterable[str]) -> list[str]:
    """The schedules of a family that were measured, in the order of the family."""
    measured = set(among)
    return [name for name in family if name in measured]


def _partly(family: Sequence[str], values: Iterable[str]) -> str:
    """A note for a claim whose family of schedules was only partly swept."""
    found = _found(family, values)
    if len(found) in (0, len(family)):
        return ""
    were = "was" if len(found) == 1 else "were"
    return f" (of the paper's, only {fmt.listed(map(fmt.setting, found))} {were} swept)"


def _over_iterations(results: Results, schedule: str, claim: "partial[Claim]") -> list[Claim]:
    """Claims about T. There is a sweet spot if log FID, fitted by a parabola in log T, falls at the
    smallest T of the sweep and rises at the largest."""
    logs, fid = np.log(_by_iterations(results, schedule, "fid")), results.metric("fid")
    recall, steps = _by_iterations(results, schedule, "recall"), logs.columns
    low, high = min(steps, default=1), max(steps, default=1)
    rows = results.sweep.sort_values([fid, "iterations"]).drop_duplicates(["seed", "schedule"])
    best = rows.pivot(index="seed", columns="schedule", values="iterations")
    best = best[_found(paper.TABLE_3, best)].dropna()  # the most concave schedule first
    claim = partial(claim, exhibit="figure8", shown_in="Figure 8")
    return [
        claim(
            said="quality peaks at a sweet spot of T and then worsens",
            source="4.4, Figure 8",
            measure=f"{fmt.setting(schedule)}, log {results.label('fid')} per doubling of T",
            sign=-1,
            parts=[
                Part(stats.slope(logs, low), kind=f"change at T = {low}"),
                Part(stats.slope(-logs, high), kind=f"change backwards from T = {high}"),
            ],
        ),
        claim(
            said="the best T is larger for less concave schedules",
            source="4.4, Figure 8",
            measure="order of the schedules' best T",
            sign=1,
            parts=[Part(stats.trend(best, range(len(best.columns))), kind=RHO)],
        ),
        claim(
            said="diversity falls as T grows",
            source=f"4.4, as a {HYPOTHESIS}",
            measure=f"{fmt.setting(schedule)}, {results.label('recall')} per doubling of T",
            sign=-1,
            parts=[Part(stats.slope(recall, low, degree=1), kind="change")],
        ),
    ]


def _by_iterations(results: Results, schedule: str, kind: str) -> pd.DataFrame:
    """A metric of one schedule: a row per seed, and a column for each T that all seeds have."""
    rows = results.sweep[results.sweep["schedule"] == schedule]
    table = rows.pivot(index="seed", columns="iterations", values=results.metric(kind))
    return table.dropna(axis=1)


def _orders(results: Results, claim: "partial[Claim]") -> list[Claim]:
    """Claims that the schedules rank as in the paper, by each of the paper's three metrics."""
    found = []
    for place, kind in enumerate(("fid", "is", "nll"), start=1):
        values, label = _best_values(results, kind), results.label(kind)
        values = values[_found(paper.TABLE_3, values)]
        order = stats.trend(values, [paper.TABLE_3[name][place] for name in values])
        said = f"the order of the schedules correlates with the paper's by {label}"
        found.append(claim(said=said, measure=label, sign=1, parts=[Part(order, kind=RHO)]))
    return found


def _crossed(results: Results, claim: "partial[Claim]") -> list[Claim]:
    """Two claims that concave schedules beat the other schedules: in training, and in decoding."""
    rows, bent, others = results.crossing, list(CONCAVE), ["linear", *CONVEX]
    rows = rows.assign(log=np.log(rows.get(results.metric("fid"), math.nan)))
    found = []
    for side, step in {"schedule": "training", "decoding_schedule": "decoding"}.items():
        ours, theirs = (_found(family, rows[side]) for family in (bent, others))
        logs, crossed = rows.pivot_table(index="seed", columns=side, values="log").dropna(), ""
        if step == "decoding" and ours and theirs:
            # One model's decodings have correlated errors: use the error of this comparison alone.
            logs = pd.DataFrame({each[0]: logs[each].mean(axis=1) for each in (ours, theirs)})
        if (ours, theirs) != (bent, others) and ours and theirs:
            names = [fmt.listed(map(fmt.setting, family)) for family in (ours, theirs)]
            crossed = f" ({names[0]} against {names[1]})"
        found.append(
            claim(
                said=f"concave schedules help in {step}{crossed}",
                source=f"4.4, as a {HYPOTHESIS}",
                exhibit="crossing-table",
                shown_in="Crossing",
                measure=results.label("fid"),
                sign=-1,
                parts=_against(logs, ours, theirs),
            )
        )
    return found


# Means over seeds, and each schedule's best T


def sweep_metrics(results: Results) -> list[str]:
    """Every metric column of the sweep: those of Table 3, then metrics that a user has added."""
    table3 = [results.metric(kind) for kind in SWEEP_METRICS]
    known = ["schedule", "iterations", "seed", "samples", *table3]
    others = [name for name in results.sweep.columns if name not in known]
    return table3 + [name for name in others if not name.endswith("_std")]


def schedule_order(names: Iterable[str]) -> list[str]:
    """The paper's schedules in the order of Table 3, then the others by name."""
    present = set(names)
    return _found(tuple(paper.TABLE_3), present) + sorted(present - set(paper.TABLE_3))


def summarize(results: Results) -> pd.DataFrame:
    """Means over seeds for each (schedule, T) of the sweep, in the paper's order of schedules. The
    columns are those of `over_seeds`, and `samples`, the number of samples per seed."""
    keys = ["schedule", "iterations"]
    summary = stats.over_seeds(results.sweep, keys, sweep_metrics(results))
    samples = results.sweep.groupby(keys)["samples"].min().to_numpy()  # also sorted by keys
    summary.insert(summary.columns.get_loc("seeds") + 1, "samples", samples)
    rank = summary["schedule"].map(schedule_order(summary["schedule"]).index)
    return summary.iloc[np.lexsort((summary["iterations"], rank))].reset_index(drop=True)


def best_iterations(summary: pd.DataFrame, metric: str, kind: str) -> pd.DataFrame:
    """For each schedule, the row of the T with the best mean of a metric over all seeds; among
    equal means, the smallest T wins. Only figures use this choice; tables use `nested_best`."""
    groups = summary[f"{metric}_mean"].groupby(summary["schedule"], sort=False)
    best = groups.idxmin() if kind in LOWER_IS_BETTER else groups.idxmax()
    return summary.loc[best].reset_index(drop=True)


def nested_best(results: Results) -> pd.DataFrame:
    """Means over seeds of each schedule, in the paper's order. Each seed has the T that is best for
    another seed. The columns are those of `over_seeds`, `iterations` (the T of all seeds, as text)
    and `samples` (the number of samples per seed)."""
    rows = at_best_iterations(results)
    cells = stats.over_seeds(rows, ["schedule"], sweep_metrics(results)).set_index("schedule")
    groups = rows.groupby("schedule")
    cells.insert(0, "iterations", groups.apply(stats.chosen_options, "iterations"))
    cells.insert(2, "samples", groups["samples"].min())
    order = schedule_order(rows["schedule"])
    return cells.loc[order].rename_axis("schedule").reset_index()


# Table 3, and the whole grid


def table3(results: Results, params: Params) -> Table:
    """Every schedule at its best T by FID, beside the paper's Table 3."""
    best, label = nested_best(results), results.label("fid")
    names = ["iterations", "fid_inception", "is_inception", "nll"]
    rows = [paper.TABLE_3.get(name) or [float("nan")] * 4 for name in best["schedule"]]
    cells = best.join(pd.DataFrame(rows, columns=names).add_prefix("paper_"))
    cells = stats.with_real_images(cells, results, cells["samples"].max(), REAL_IMAGES)
    chosen = "Each seed is shown at the T that is best for the next seed."
    if best["seeds"].max() < 2:
        chosen = "T was chosen on the same samples that are shown, which flatters the result."
    return Table(
        name="table3",
        title=f"Table 3: mask schedules, each at its best T by {label}, beside the paper's",
        cells=cells,
        columns=_beside_paper(cells, results, params),
        notes=[
            f"{_sampling_note(best)} {chosen} Real images are validation images, in subsets of "
            f"{fmt.count(best['samples'].max())}. {measure_note(params, results.extractor)}",
            "The NLL (in nats) is averaged over the masked tokens of each validation image, then "
            "over images; masks are drawn with the schedule, as in training. Columns marked "
            "(paper …) show the paper's Table 3 on ImageNet 256×256: compare orderings, not "
            "values. The paper does not define its NLL.",
            *_training_note(params),
        ],
        paper="concave schedules are generally better than linear (except exponential, by FID "
        "(Inception)), and linear is better than convex ones; cosine at "
        f"T = {paper.TABLE_3['cosine'].iterations} is the best (FID (Inception) "
        f"{paper.TABLE_3['cosine'].fid}), just ahead of square; exponential masks too much.",
    )


def _beside_paper(cells: pd.DataFrame, results: Results, params: Params) -> dict[str, Any]:
    """Our columns, each followed by the paper's column of the same metric, if it exists."""
    over = fmt.seeds_of(cells["seeds"], params)
    chosen = "T, chosen by another seed" if over else "T, chosen on the same samples"
    theirs = {
        results.metric("fid"): {paper.FID: fmt.printed(cells["paper_fid_inception"], 2)},
        results.metric("is"): {paper.IS: fmt.printed(cells["paper_is_inception"], 1)},
        "nll": {paper.NLL: fmt.printed(cells["paper_nll"], 2)},
    }
    readable = {
        "schedule": cells["schedule"].map(fmt.setting),
        chosen: cells["iterations"].fillna(fmt.NONE),
        "T (paper)": fmt.printed(cells["paper_iterations"], 0),
    }
    for metric in map(results.metric, SWEEP_METRICS):
        readable |= _ours(cells, metric, results, over) | theirs.get(metric, {})
    return readable


def _ours(cells: pd.DataFrame, metric: str, results: Results, over: str) -> dict[str, list[str]]:
    label = fmt.counted_label(metric, results.extractor, cells["samples"])
    # Real images are never bold, nor are NLLs: each schedule's NLL is over different masks.
    among = None if metric == "nll" else cells["iterations"].notna()
    return fmt.columns(cells, {metric: label}, over, among)


def grid(results: Results, params: Params) -> Table:
    """Means and intervals over seeds of every schedule at every T of the sweep."""
    summary = summarize(results)
    cells = stats.with_real_images(summary, results, summary["samples"].max(), REAL_IMAGES)
    over = fmt.seeds_of(cells["seeds"], params)
    readable = {
        "schedule": cells["schedule"].map(fmt.setting),
        "T": cells["iterations"].map(fmt.count),
        "seeds": cells["seeds"].map(fmt.count),
    }
    for metric in sweep_metrics(results):
        readable |= _ours(cells, metric, results, over)
    return Table(
        name="sweep",
        title="Every schedule at every T",
        cells=cells,
        columns=readable,
        notes=[_sampling_note(summary)],
        folded=True,
    )


def _training_note(params: Params) -> list[str]:
    """A note on the training of the sweep's models, if it differs from the main model's."""
    if params.transformer.pretrained:
        return [
            "All schedules decode with the same released weights; the paper trains a model for "
            "each schedule. Seeds differ in the samples, not in the model."
        ]
    if params.sweep.steps >= params.training.steps:
        return []
    return [
        f"The sweep's models are trained for {fmt.count(params.sweep.steps)} steps, fewer than the "
        f"main model's {fmt.count(params.training.steps)}."
    ]


def _sampling_note(cells: pd.DataFrame) -> str:
    seeds, samples = fmt.extent(cells["seeds"]), fmt.extent(cells["samples"])
    if seeds == "1":
        return f"One seed of {samples} samples has no interval, so nothing can be concluded."
    return f"Means over {seeds} seeds of {samples} samples each."


# Crossed schedules


def crossing(results: Results, params: Params) -> Table:
    """One row per training schedule, with a column per decoding schedule."""
    rows, fid, label = results.crossing, results.metric("fid"), results.label("fid")
    cells = stats.over_seeds(rows, ["schedule", "decoding_schedule"], [fid, results.metric("is")])
    note = ""
    if len(cells):
        samples = rows["samples"].min()
        real = stats.with_real_images(pd.DataFrame(), results, samples, {})
        known = "" if real.empty else fmt.number(real[f"{fid}_mean"][0])
        note = (
            f"Means are {label} of {fmt.count(samples)} samples per seed at T = "
            f"{fmt.extent(rows['iterations'])}{f' ({known} for real images)' if known else ''}. "
            "Each model of the sweep decodes with every schedule. A lowest mean may be chance. "
            f"{measure_note(params, results.extractor)}"
        )
    return Table(
        name="crossing",
        title=f"One schedule in training, another in decoding: {label}",
        cells=cells,
        columns=_square(cells, fid, fmt.seeds_of(cells["seeds"], params)),
        notes=[note or "No schedules were crossed (sweep.crossed is empty)."],
        paper="concave schedules are supposed to help twice: training has harder cases, with more "
        "tokens masked, and decoding goes from few tokens to many; the two always change together.",
    )


def _square(cells: pd.DataFrame, metric: str, over: str) -> pd.DataFrame:
    """The mean of a metric for each training schedule (row) and decoding schedule (column)."""
    names, decoded = (schedule_order(cells[side]) for side in ("schedule", "decoding_schedule"))
    cells = cells.assign(text=fmt.column(cells, metric))
    square = partial(cells.pivot, index="schedule", columns="decoding_schedule")
    means = square(values=f"{metric}_mean")
    table = square(values="text").loc[names, decoded].fillna(fmt.NONE)
    table.columns = [fmt.heading(f"decoded: {fmt.setting(name)}", over) for name in decoded]
    table["lowest in the row"] = means.idxmin(axis=1).map(fmt.setting)
    table["mean of the row"] = means.mean(axis=1).map(fmt.number)
    if names:
        lowest = means[decoded].idxmin().map(fmt.setting)
        table.loc["lowest in the column"] = [*lowest, fmt.NONE, fmt.NONE]
    return table.rename(index=fmt.setting).rename_axis("trained").reset_index()


# Figure 8: the mask schedules γ(r), and FID and IS against the iterations T


def curves(results: Results, params: Params) -> Figure:
    """γ(r) of the sweep's schedules (the left part of the paper's Figure 8)."""
    return Figure(
        name="schedules",
        title=f"Figure 8, left: the mask schedules γ(r), N = {CURVE_TOKENS}",
        alt="Curves of the share of tokens that is masked, from 1 at the start of decoding to 0 at "
        "its end, one for each mask schedule.",
        draw=partial(_draw_curves, results),
        chart=True,
    )


def quality(results: Results, params: Params) -> Figure:
    """FID and IS against T, a line per schedule (the right part of the paper's Figure 8)."""
    fid, is_ = results.label("fid"), results.label("is")
    return Figure(
        name="figure8",
        title=f"Figure 8, right: {fid} and {is_} against the iterations T",
        alt=f"Two charts with a curve for each mask schedule: {fid} and {is_} of samples by number "
        "of decoding iterations, each schedule's best marked with a star.",
        paper="more iterations are not necessarily better: every schedule except the logarithmic "
        "has a sweet spot, at smaller T for more concave schedules (8 to 12 for cosine).",
        here=_lowest(results, params.training.mask_schedule),
        draw=partial(_draw_quality, results),
        chart=True,
    )


def _lowest(results: Results, schedule: str) -> list[str]:
    """A sentence on the T at which a schedule's fitted FID is least."""
    logs = np.log(_by_iterations(results, schedule, "fid"))
    if len(logs.columns) < 3:
        return []
    best, low, high = stats.lowest(logs)
    interval = "" if math.isnan(low) else f" (95% interval: {low:.3g} to {high:.3g})"
    return [
        f"{fmt.setting(schedule)}: a parabola fitted to log FID over log T is least at T = "
        f"**{best:.3g}**{interval}; T was {logs.columns[0]} to {logs.columns[-1]}."
    ]


def _draw_curves(results: Results, path: Path, narrow: bool = False) -> None:
    with panels(path, narrow, (5.2, 3.4), tall=4.2, count=1, ncols=2) as ((axes,), _):
        order = schedule_order(results.sweep["schedule"])
        for name, colour in schedule_colours(order).items():
            points = results.curves[name].iloc[::EVERY]
            axes.plot(points["r"], points["gamma"], color=colour, label=fmt.setting(name))
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.set(xlabel="progress of decoding r = t / T", ylabel="mask ratio γ(r)")


def _draw_quality(results: Results, path: Path, narrow: bool = False) -> None:
    summary = summarize(results)
    several = summary["seeds"].max() > 1
    spread = "shaded: one standard\ndeviation over seeds" if several else "one seed: no spread"
    with panels(path, narrow, (9.8, 3.7), tall=7.4, space=0.06, ncols=2) as (drawn, legend):
        for axes, kind in zip(drawn, ("fid", "is"), strict=True):
            _draw_metric(axes, summary, results.metric(kind), kind)
            axes.set_ylabel(results.axis(kind))
        star = axes.plot([], [], "*", color="#666666", markersize=11, markeredgecolor="white")
        legend |= {"best T of all seeds": star[0], spread: axes.plot([], [], " ")[0]}


def _draw_metric(axes: Axes, summary: pd.DataFrame, metric: str, kind: str) -> None:
    means = summary[f"{metric}_mean"]
    colours = schedule_colours(schedule_order(summary["schedule"]))
    logarithmic = means.min() > 0 and means.max() > 10 * means.min()
    # A log axis cannot show a band that reaches zero; the band is cut below all means.
    floor = means.min() / 2 if logarithmic else 0.0
    for name, colour in colours.items():
        cells = summary[summary["schedule"] == name]
        mean, std = cells[f"{metric}_mean"], cells[f"{metric}_std"]
        low, high = np.maximum(mean - std, floor), mean + std
        curve(axes, cells["iterations"], mean, low, high, colour, label=fmt.setting(name))
    look: dict[str, Any] = {"ms": 13, "mec": "white", "mew": 0.8, "zorder": 4}
    for row in best_iterations(summary, metric, kind).to_dict("records"):
        colour, mean = colours[row["schedule"]], row[f"{metric}_mean"]
        axes.plot(row["iterations"], mean, "*", color=colour, **look)
    log_steps(axes, summary["iterations"])  # ticks under the stars
    axes.set_xlabel("iterations T")
    if logarithmic:
        axes.set_yscale("log")
    plain_numbers(axes.yaxis, logarithmic)
