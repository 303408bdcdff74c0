"""Means over seeds, the best T of each mask schedule, and the agreement of its ranking with the
paper's."""

from itertools import permutations

import numpy as np
import pandas as pd
from scipy.stats import rankdata, spearmanr

from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import LOWER_IS_BETTER
from analysis.exhibits.inputs.sweep import Sweep


def over_seeds(rows: pd.DataFrame, keys: list[str], metrics: list[str]) -> pd.DataFrame:
    """Mean and sample standard deviation over seeds, by `keys` and sorted by them.

    Returns:
        The keys, seeds (how many), and `<metric>_mean` and `<metric>_std` of every metric; the std
        of a single seed is NaN.
    """
    cells = rows.groupby(keys)
    columns = {"seeds": cells["seed"].nunique()}
    for metric in metrics:
        columns[f"{metric}_mean"] = cells[metric].mean()
        columns[f"{metric}_std"] = cells[metric].std(ddof=1)
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
    """The row of each schedule's best T by the mean of a metric; of equal ones the smallest T."""
    means = summary[f"{sweep.column(kind)}_mean"]
    groups = means.groupby(summary["schedule"], sort=False)
    best = groups.idxmin() if kind in LOWER_IS_BETTER else groups.idxmax()
    return summary.loc[best].reset_index(drop=True)


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
        rho = p_value = float("nan")
        values = shared[f"{metric}_mean"].to_numpy()
        if len(set(values)) > 1 and len(values) >= 3:
            rho = float(spearmanr(values, theirs[field]).statistic)
            p_value = _permutation_p(values, theirs[field].to_numpy(), rho)
        rows.append(
            {
                "metric": metric,
                "paper_metric": label,
                "schedules": len(shared),
                "spearman_rho": rho,
                "p_value": p_value,
            }
        )
    return pd.DataFrame(rows)


def _permutation_p(ours: np.ndarray, theirs: np.ndarray, rho: float) -> float:
    """Two-sided p of ρ over all orderings: exact, as seven schedules are too few for the t test."""
    orderings = np.array(list(permutations(rankdata(ours))))
    centred = rankdata(theirs) - rankdata(theirs).mean()
    # Every ordering has the same norm, so ρ is proportional to the product with centred ranks.
    products = orderings @ centred / (np.std(orderings[0]) * np.std(centred) * len(ours))
    return float(np.mean(np.abs(products) >= abs(rho) - 1e-9))
