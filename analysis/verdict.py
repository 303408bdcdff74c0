"""The outcome of the schedule ablation in plain sentences, whether or not it is the paper's."""

import math

import pandas as pd

from analysis import paper
from analysis.formatting import number, spread
from analysis.results import Sweep, metric_label
from analysis.statistics import HIGHER_IS_BETTER


def verdict(best: pd.DataFrame, sweep: Sweep, kind: str) -> list[str]:
    """Say which schedule is best here, which beat the paper's best one, and by how much.

    Args:
        best: each schedule at its best T (`best_iterations`).
        kind: the metric that ranks them, "fid" or "is".
    """
    metric = sweep.column(kind)
    ranked = best.sort_values(
        f"{metric}_mean", ascending=not HIGHER_IS_BETTER[kind], kind="stable"
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
    if better:
        listed = ", ".join(f"{_plain(name)} ({cells[name]})" for name in better)
        verb = "beats" if len(better) == 1 else "beat"
        sentences.append(
            f"Unlike in the paper, {listed} {verb} {reference} ({cells[reference]}) here."
        )
    if len(names) > 1:
        rival = reference if better else names[1]
        sentences.append(_gap(ranked[0], ranked[names.index(rival)], metric))
    return sentences


def _gap(winner: dict, rival: dict, metric: str) -> str:
    """Set the difference between two schedules against the spread over seeds."""
    gap = abs(winner[f"{metric}_mean"] - rival[f"{metric}_mean"])
    noise = math.hypot(winner[f"{metric}_std"], rival[f"{metric}_std"])
    text = f"The gap between {_plain(winner['schedule'])} and {_plain(rival['schedule'])} is "
    text += number(gap)
    if math.isnan(noise):
        return f"{text}; without a second seed nothing says whether it is noise."
    relation = "more" if gap > noise else "no more"
    return f"{text}, {relation} than their seeds' combined standard deviation {number(noise)}."


def _cell(row: dict, metric: str) -> str:
    return f"{spread(row[f'{metric}_mean'], row[f'{metric}_std'])} at T = {row['iterations']}"


def _plain(schedule: str) -> str:
    return schedule.replace("_", " ")
