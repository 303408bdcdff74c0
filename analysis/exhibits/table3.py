"""Table 3: the mask schedules, each at its best T; the whole grid; agreement with the paper."""

import pandas as pd

from analysis.exhibits import claims, intervals
from analysis.exhibits.base import Table
from analysis.exhibits.formatting import count, extent, listed, number, printed
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import MODELS, measure_note, metric_label, plain
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.inputs.sweep import Sweep
from analysis.exhibits.statistics import nested_best, rank_correlation, real_images, summarize
from pipeline.config.params import Params

FILES = ["sweep/rows.csv"]


def table(results: Results, params: Params) -> Table:
    """Every schedule at the T that is best by `analysis.best_by`, beside the paper's Table 3."""
    sweep, best_by = results.sweep, params.analysis.best_by
    best = nested_best(sweep, best_by)
    cells = best.join(pd.DataFrame(_printed(name) for name in best["schedule"]))
    real = real_images(results, cells["samples"].max(), {"schedule": MODELS["real"]})
    cells = pd.concat([cells, real], ignore_index=True)
    chosen_by = metric_label(sweep.column(best_by), sweep.extractor)
    return Table(
        name="table3",
        title=f"Table 3: mask schedules, each at its best T by {chosen_by}, beside the paper's",
        cells=cells,
        readable=_beside_paper(cells, sweep, params),
        notes=[
            f"{_sampling_note(best)} {_choice_note(best)} {measure_note(params, sweep.extractor)}",
            "NLL, in nats: mean over the masked tokens of a validation image, then over images; "
            "masks are drawn from the schedule as in its training. Columns marked (paper …) are "
            "the paper's Table 3 on ImageNet 256×256, which does not define its NLL: compare "
            "orderings, not values.",
            *_reach_notes(best, sweep, params),
            *training_note(params),
        ],
        paper="concave schedules are generally better than linear (exponential is not, by FID "
        "(Inception)), and linear than convex ones; cosine is "
        f"the best, at T = {paper.TABLE_3['cosine'].iterations} (FID (Inception) "
        f"{paper.TABLE_3['cosine'].fid}), just before square, while exponential masks too much.",
        here=claims.sentences(results, params, "table3-table") + _facts(best, sweep, best_by),
        files=[*FILES, "evaluation/real.csv"],
    )


def _beside_paper(cells: pd.DataFrame, sweep: Sweep, params: Params) -> pd.DataFrame:
    """Our columns, the paper's after those that it has."""
    over = intervals.seeds_of(cells["seeds"], params)
    chosen = "T, chosen by another seed" if over else "T, chosen on the same samples"
    theirs = {
        sweep.column("fid"): (paper.FID, printed(cells["paper_fid_inception"], 2)),
        sweep.column("is"): (paper.IS, printed(cells["paper_is_inception"], 1)),
        "nll": (paper.NLL, printed(cells["paper_nll"], 2)),
    }
    columns = {
        "schedule": cells["schedule"].map(plain),
        chosen: cells["iterations"].fillna("–"),
        "T (paper)": printed(cells["paper_iterations"], 0),
    }
    for metric in sweep.table_metrics:
        columns |= _ours(cells, metric, sweep, over)
        if metric in theirs:
            label, values = theirs[metric]
            columns[label] = values
    return pd.DataFrame(columns)


def grid(results: Results, params: Params) -> Table:
    """Every cell of the sweep, mean and interval over seeds per (schedule, T)."""
    sweep = results.sweep
    summary = summarize(sweep)
    real = real_images(results, summary["samples"].max(), {"schedule": MODELS["real"]})
    cells = pd.concat([summary, real], ignore_index=True)
    over = intervals.seeds_of(cells["seeds"], params)
    columns = {
        "schedule": cells["schedule"].map(plain),
        "T": cells["iterations"].map(count),
        "seeds": cells["seeds"].map(count),
    }
    for metric in sweep.metrics:
        columns |= _ours(cells, metric, sweep, over)
    return Table(
        name="sweep",
        title="Every schedule at every T",
        cells=cells,
        readable=pd.DataFrame(columns),
        notes=[_sampling_note(summary)],
        files=[*FILES, "evaluation/real.csv"],
        folded=True,
    )


def agreement(results: Results, params: Params) -> Table:
    """Rank correlations of our ordering of the schedules with the paper's."""
    sweep = results.sweep
    best = nested_best(sweep, params.analysis.best_by)
    cells = rank_correlation(best, sweep)
    notes = ["ρ = 1: the same ordering; p: exact, two-sided, over all orderings of the schedules."]
    others = [plain(name) for name in best["schedule"] if name not in paper.TABLE_3]
    if others:
        notes.append(f"Left out, as not among the paper's schedules: {listed(others)}.")
    notes += training_note(params)
    if cells["spearman_rho"].isna().any():
        notes.append("– : not defined for fewer than three schedules, or if all are equal.")
    return Table(
        name="rank_correlation",
        title="Agreement with the paper's ordering of the schedules (Spearman's ρ)",
        cells=cells,
        readable=pd.DataFrame(
            {
                "metric": [metric_label(name, sweep.extractor) for name in cells["metric"]],
                "against": cells["paper_metric"],
                "schedules": cells["schedules"].astype(str),
                "ρ": cells["spearman_rho"].map(number),
                "p, uncorrected": cells["p_value"].map(number),
            }
        ),
        notes=notes,
        here=claims.sentences(results, params, "rank_correlation-table"),
        files=FILES,
    )


def _reach_notes(best: pd.DataFrame, sweep: Sweep, params: Params) -> list[str]:
    """What the sweep may have stopped short of: larger T, longer training."""
    largest = sweep.rows.groupby("schedule")["iterations"].max()
    ends = [
        f"{plain(name)} (T = {largest[name]:g})"
        for name, chosen in zip(best["schedule"], best["iterations"], strict=True)
        if chosen == f"{largest[name]:g}"
    ]
    notes = []
    if ends:
        notes.append(
            "Chosen for every seed is the largest T of the grid, so that the best may lie beyond: "
            f"{listed(ends)}."
        )
    if not params.transformer.pretrained and params.sweep.steps < params.training.steps:
        notes.append(
            f"The sweep's models are trained for {count(params.sweep.steps)} steps, fewer than the "
            f"main model's {count(params.training.steps)}."
        )
    return notes


def training_note(params: Params) -> list[str]:
    """What readers must know where released weights took training's place."""
    if not params.transformer.pretrained:
        return []
    return [
        "Every schedule decodes from the same released weights; the paper trains a model for each. "
        "Seeds differ in what is sampled, not in the model."
    ]


def _facts(best: pd.DataFrame, sweep: Sweep, kind: str) -> list[str]:
    """What the paper's best schedule and the family around it reached."""
    metric = sweep.column(kind)
    each = [
        f"{plain(row['schedule'])} {number(row[f'{metric}_mean'])}"
        for row in best.to_dict("records")
    ]
    return [f"{metric_label(metric, sweep.extractor)} of each at its best T: {listed(each)}."]


def _printed(name: str) -> dict[str, float]:
    row = paper.TABLE_3.get(name)
    values = row or [float("nan")] * 4
    columns = ("iterations", "fid_inception", "is_inception", "nll")
    return {f"paper_{column}": value for column, value in zip(columns, values, strict=True)}


def _ours(cells: pd.DataFrame, metric: str, sweep: Sweep, over: str) -> dict[str, list[str]]:
    label = intervals.heading(
        intervals.counted_label(metric, sweep.extractor, cells["samples"]), over
    )
    # Real images are in no competition, nor NLLs: each schedule's is over masks of its own.
    among = None if metric == "nll" else cells["iterations"].notna()
    return {label: intervals.column(cells, metric, among)}


def _sampling_note(cells: pd.DataFrame) -> str:
    """How many seeds and samples the numbers stand on."""
    seeds, samples = extent(cells["seeds"]), extent(cells["samples"])
    if seeds == "1":
        return f"One seed of {samples} samples: no interval, and nothing can be concluded."
    return f"Means over {seeds} seeds of {samples} samples each."


def _choice_note(cells: pd.DataFrame) -> str:
    """On which samples the best T was chosen, and what real images in as many samples are for."""
    real = (
        f"Real images: validation images in subsets of {count(cells['samples'].max())}, as few "
        "images alone are some way from the training images."
    )
    if cells["seeds"].max() < 2:
        return f"T was chosen by the samples that it is reported on, which flatters it. {real}"
    return (
        "For each seed T is the best of another seed, so that no sample reports on a T that it "
        f"chose; several T are in the order of the seeds. {real}"
    )
