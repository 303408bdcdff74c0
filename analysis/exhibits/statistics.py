"""Means over seeds, the best T of each mask schedule, and the agreement of its ranking with the
paper's."""

import numpy as np
import pandas as pd

from analysis.exhibits.comparisons.inference import half_width, rank_order
from analysis.exhibits.comparisons.schedules import at_best_iterations
from analysis.exhibits.comparisons.seeds import chosen_options
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import LOWER_IS_BETTER
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.inputs.sweep import Sweep


def over_seeds(rows: pd.DataFrame, keys: list[str], metrics: list[str]) -> pd.DataFrame:
    """Mean, sample standard deviation and interval over seeds, by `keys` and sorted by them.

    Returns:
        The keys, seeds (how many), and of every metric `<metric>_mean`, `<metric>_std` and
        `<metric>_ci95`, half of the mean's 95% t interval. One seed has neither of the last two
        (NaN).
    """
    cells = rows.groupby(keys)
    columns = {"seeds": cells["seed"].nunique()}
    for metric in metrics:
        columns[f"{metric}_mean"] = cells[metric].mean()
        columns[f"{metric}_std"] = cells[metric].std(ddof=1)
        columns[f"{metric}_ci95"] = cells[metric].agg(half_width)
    return pd.DataFrame(columns).reset_index()


def beside(ours: pd.DataFrame, theirs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Our rows with the paper's columns joined to them, then the rows that only the paper has."""
    joined = ours.merge(theirs, how="left", on=keys)
    known = set(ours[keys].itertuples(index=False, name=None))
    new = [key not in known for key in theirs[keys].itertuples(index=False, name=None)]
    return pd.concat([joined, theirs[new]], ignore_index=True)


def schedule_order(names: pd.Series) -> list[str]:
    """The paper's schedules in its Table 3's order, then the others by name."""
    present = set(names)
    ours = sorted(present - set(paper.TABLE_3))
    return [name for name in paper.TABLE_3 if name in present] + ours


def summarize(sweep: Sweep) -> pd.DataFrame:
    """Means over seeds of the sweep, per (schedule, T), in the paper's order of schedules.

    Returns:
        As `over_seeds`, and samples (of one seed).
    """
    keys = ["schedule", "iterations"]
    summary = over_seeds(sweep.rows, keys, sweep.metrics)
    samples = sweep.rows.groupby(keys)["samples"].min().to_numpy()  # sorted by the keys as well
    summary.insert(summary.columns.get_loc("seeds") + 1, "samples", samples)
    order = {name: place for place, name in enumerate(schedule_order(summary["schedule"]))}
    place = summary["schedule"].map(order)
    return summary.iloc[np.lexsort((summary["iterations"], place))].reset_index(drop=True)


def best_iterations(summary: pd.DataFrame, sweep: Sweep, kind: str) -> pd.DataFrame:
    """The row of each schedule's best T by the mean of a metric over all seeds, to mark it in a
    figure; of equal ones the smallest T. A table has `nested_best`."""
    means = summary[f"{sweep.column(kind)}_mean"]
    groups = means.groupby(summary["schedule"], sort=False)
    best = groups.idxmin() if kind in LOWER_IS_BETTER else groups.idxmax()
    return summary.loc[best].reset_index(drop=True)


def nested_best(sweep: Sweep, kind: str) -> pd.DataFrame:
    """Each schedule, in the paper's order, at its best T, which another seed chooses for each.

    Returns:
        As `over_seeds`, and iterations: the T's, as text, in the order of the seeds, or the one
        that all have; samples (of one seed).
    """
    rows = at_best_iterations(sweep, kind)
    cells = over_seeds(rows, ["schedule"], sweep.metrics).set_index("schedule")
    groups = rows.groupby("schedule")
    cells.insert(0, "iterations", groups.apply(chosen_options, "iterations"))
    cells.insert(2, "samples", groups["samples"].min())
    order = schedule_order(rows["schedule"])
    return cells.loc[order].rename_axis("schedule").reset_index()


def rank_correlation(best: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """Spearman's ρ between our ordering of the schedules and the paper's, by FID, IS and NLL.

    Taken over the schedules that both have, each at its own best T. Fewer than three, or a metric
    that is the same for all of them, have no ρ (NaN).
    """
    shared = best[best["schedule"].isin(paper.TABLE_3)]
    theirs = pd.DataFrame([paper.TABLE_3[name] for name in shared["schedule"]])
    rows = []
    fields = {"fid": ("fid", paper.FID), "is": ("is_", paper.IS), "nll": ("nll", paper.NLL)}
    for kind, (field, label) in fields.items():
        metric = sweep.column(kind)
        reference = theirs[field].to_numpy() if len(shared) else np.array([])
        effect = rank_order(shared[f"{metric}_mean"].to_numpy(), reference)
        rows.append(
            {
                "metric": metric,
                "paper_metric": label,
                "schedules": len(shared),
                "spearman_rho": effect.value,
                "p_value": effect.p,
            }
        )
    return pd.DataFrame(rows)


def real_images(results: Results, samples: float, keys: dict[str, str | float]) -> pd.DataFrame:
    """Held-out real images in as many as the samples of a table: its FID is mostly of their number.

    Args:
        keys: what the row has in the table's own columns.

    Returns:
        One row in the columns of `over_seeds`, the mean over disjoint subsets, without an interval;
        none where the validation images are too few.
    """
    rows = results.real[results.real["samples"] == samples]
    if rows.empty:
        return pd.DataFrame()
    metrics = [name for name in rows.columns if name not in ("samples", "subset")]
    means = {f"{name}_mean": rows[name].mean() for name in metrics}
    return pd.DataFrame([keys | {"samples": samples} | means])
