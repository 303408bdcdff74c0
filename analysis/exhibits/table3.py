"""Table 3: the mask schedules, each at its best T; the whole grid; agreement with the paper."""

import pandas as pd

from analysis.exhibits.base import Table
from analysis.exhibits.findings import Measured, significance
from analysis.exhibits.formatting import extent, listed, number, printed, spread, spreads
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import LOWER_IS_BETTER, measure_note, metric_label
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.inputs.sweep import Sweep
from analysis.exhibits.statistics import best_iterations, rank_correlation, summarize
from pipeline.config.params import Params

FILES = ["sweep/rows.csv"]


def table(results: Results, params: Params) -> Table:
    """Every schedule at the T that is best by `analysis.best_by`, beside the paper's Table 3."""
    sweep, best_by = results.sweep, params.analysis.best_by
    best = best_iterations(summarize(sweep), sweep, best_by)
    cells = best.join(pd.DataFrame(_printed(name) for name in best["schedule"]))
    readable = _readable(cells, sweep, sweep.table_metrics).drop(columns="seeds")
    theirs = {
        "T": ("T (paper)", printed(cells["paper_iterations"], 0)),
        metric_label(sweep.column("fid"), sweep.extractor): (
            paper.FID,
            printed(cells["paper_fid_inception"], 2),
        ),
        metric_label(sweep.column("is"), sweep.extractor): (
            paper.IS,
            printed(cells["paper_is_inception"], 1),
        ),
        "NLL": (paper.NLL, printed(cells["paper_nll"], 2)),
    }
    for ours, (label, values) in theirs.items():
        readable.insert(readable.columns.get_loc(ours) + 1, label, values)
    chosen_by = metric_label(sweep.column(best_by), sweep.extractor)
    return Table(
        name="table3",
        title=f"Table 3: mask schedules, each at its best T by {chosen_by}, beside the paper's",
        cells=cells,
        readable=readable,
        notes=[
            f"{_sampling_note(best)} {measure_note(params, sweep.extractor)}",
            "NLL, in nats: mean over the masked tokens of a validation image, then over images; "
            "masks are drawn from the schedule as in its training. Columns marked (paper …) are "
            "the paper's Table 3 on ImageNet 256×256: compare orderings, not values.",
            *training_note(params),
        ],
        paper="concave schedules are generally better than linear (exponential is not, by FID "
        "(Inception)), and linear than convex ones; cosine is "
        f"the best, at T = {paper.TABLE_3['cosine'].iterations} (FID (Inception) "
        f"{paper.TABLE_3['cosine'].fid}), just before square, while exponential masks too much.",
        here=verdict(best, sweep, best_by),
        files=FILES,
    )


def grid(results: Results, params: Params) -> Table:
    """Every cell of the sweep, mean and std over seeds per (schedule, T)."""
    sweep = results.sweep
    summary = summarize(sweep)
    return Table(
        name="sweep",
        title="Every schedule at every T",
        cells=summary,
        readable=_readable(summary, sweep, sweep.metrics),
        notes=[_sampling_note(summary)],
        files=FILES,
        folded=True,
    )


def agreement(results: Results, params: Params) -> Table:
    """Rank correlations of our ordering of the schedules with the paper's."""
    sweep = results.sweep
    best = best_iterations(summarize(sweep), sweep, params.analysis.best_by)
    cells = rank_correlation(best, sweep)
    notes = ["ρ = 1: the same ordering; p: exact, two-sided, over all orderings of the schedules."]
    others = [_plain(name) for name in best["schedule"] if name not in paper.TABLE_3]
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
                "p": cells["p_value"].map(number),
            }
        ),
        notes=notes,
        files=FILES,
    )


def training_note(params: Params) -> list[str]:
    """What readers must know where released weights took training's place."""
    if not params.transformer.pretrained:
        return []
    return [
        "Every schedule decodes from the same released weights; the paper trains a model for each. "
        "Seeds differ in what is sampled, not in the model."
    ]


def verdict(best: pd.DataFrame, sweep: Sweep, kind: str) -> list[str]:
    """Say which schedule is best here, which beat the paper's best one, and by how much.

    Args:
        best: each schedule at its best T (`best_iterations`).
        kind: the metric that ranks them, "fid" or "is".
    """
    metric = sweep.column(kind)
    ranked = best.sort_values(
        f"{metric}_mean", ascending=kind in LOWER_IS_BETTER, kind="stable"
    ).to_dict("records")
    cells = {row["schedule"]: _cell(row, metric) for row in ranked}
    names = list(cells)
    winner, reference = names[0], paper.BEST_SCHEDULE
    label = metric_label(metric, sweep.extractor)
    sentences = [
        f"By {label} the best schedule here is **{_plain(winner)}** ({cells[winner]}); in the "
        f"paper it is **{reference}** (T = {paper.TABLE_3[reference].iterations})."
    ]
    if reference not in names:
        return [*sentences, f"The sweep has no {reference} schedule to compare with."]
    better = names[: names.index(reference)]
    sentences += _beaten_by(better, cells)
    if len(names) > 1:
        rival = ranked[names.index(reference if better else names[1])]
        first, second = (
            Measured(_plain(row["schedule"]), row[f"{metric}_mean"], row[f"{metric}_std"])
            for row in (ranked[0], rival)
        )
        sentences.append(
            f"Between {first.name} and {second.name} {significance(first, second, 'seeds')}."
        )
    return sentences


def _beaten_by(better: list[str], cells: dict[str, str]) -> list[str]:
    """Say which schedules beat the paper's best one: its own, against what it found, and others,
    which it did not try and so does not contradict.

    Args:
        better: those schedules, the best first.
        cells: what each schedule reached.
    """
    reference = f"{paper.BEST_SCHEDULE} ({cells[paper.BEST_SCHEDULE]}) here."
    sentences = []
    for opening, of_paper in (
        ("Unlike in the paper, ", True),
        ("Of schedules that the paper does not have, ", False),
    ):
        names = [name for name in better if (name in paper.TABLE_3) == of_paper]
        beaten = ", ".join(f"{_plain(name)} ({cells[name]})" for name in names)
        verb = "beats" if len(names) == 1 else "beat"
        if names:
            sentences.append(f"{opening}{beaten} {verb} {reference}")
    return sentences


def _cell(row: dict, metric: str) -> str:
    return f"{spread(row[f'{metric}_mean'], row[f'{metric}_std'])} at T = {row['iterations']}"


def _plain(schedule: str) -> str:
    return schedule.replace("_", " ")


def _printed(name: str) -> dict[str, float]:
    row = paper.TABLE_3.get(name)
    values = row or [float("nan")] * 4
    columns = ("iterations", "fid_inception", "is_inception", "nll")
    return {f"paper_{column}": value for column, value in zip(columns, values, strict=True)}


def _readable(cells: pd.DataFrame, sweep: Sweep, metrics: list[str]) -> pd.DataFrame:
    table = {"schedule": cells["schedule"].map(_plain), "T": cells["iterations"].astype(str)}
    table["seeds"] = cells["seeds"].astype(str)
    table |= {metric_label(name, sweep.extractor): spreads(cells, name) for name in metrics}
    return pd.DataFrame(table)


def _sampling_note(cells: pd.DataFrame) -> str:
    """How many seeds and samples the numbers stand on."""
    seeds, samples = extent(cells["seeds"]), extent(cells["samples"])
    if seeds == "1":
        return f"One seed of {samples} samples: no spread can be given."
    return f"Mean ± sample standard deviation over {seeds} seeds of {samples} samples each."
