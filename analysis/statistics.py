"""Statistics of the sweep: means over seeds, the best T of each schedule, agreement of rankings."""

from itertools import permutations

import numpy as np
import pandas as pd
from scipy.stats import rankdata, spearmanr

from analysis import paper
from analysis.results import Sweep

# FID and NLL are better when lower.
HIGHER_IS_BETTER = {"fid": False, "is": True, "nll": False}


def schedule_order(names: pd.Series) -> list[str]:
    """The paper's schedules in its Table 3's order, then the others by name."""
    present = set(names)
    ours = sorted(present - set(paper.TABLE_3))
    return [name for name in paper.TABLE_3 if name in present] + ours


def summarize(sweep: Sweep) -> pd.DataFrame:
    """Mean and sample standard deviation over seeds of every metric, per (schedule, T).

    Returns:
        Columns schedule, iterations, seeds, samples (of one seed), and `<metric>_mean` and
        `<metric>_std` for every metric; the std of a single seed is NaN.
    """
    cells = sweep.rows.groupby(["schedule", "iterations"])
    columns = {"seeds": cells["seed"].nunique(), "samples": cells["samples"].min()}
    for metric in sweep.metrics:
        columns[f"{metric}_mean"] = cells[metric].mean()
        columns[f"{metric}_std"] = cells[metric].std(ddof=1)
    summary = pd.DataFrame(columns).reset_index()
    order = {name: place for place, name in enumerate(schedule_order(summary["schedule"]))}
    place = summary["schedule"].map(order)
    return summary.iloc[np.lexsort((summary["iterations"], place))].reset_index(drop=True)


def best_iterations(summary: pd.DataFrame, sweep: Sweep, kind: str) -> pd.DataFrame:
    """The row of each schedule's best T by the mean of a metric; of equal ones the smallest T."""
    means = summary[f"{sweep.column(kind)}_mean"]
    groups = means.groupby(summary["schedule"], sort=False)
    best = groups.idxmax() if HIGHER_IS_BETTER[kind] else groups.idxmin()
    return summary.loc[best].reset_index(drop=True)


def rank_correlation(best: pd.DataFrame, sweep: Sweep) -> pd.DataFrame:
    """Spearman's ρ between our ordering of the schedules and the paper's, by FID, IS and NLL.

    Taken over the schedules that both have, each at its own best T. Fewer than three, or a metric
    that is the same for all of them, have no ρ (NaN).
    """
    shared = best[best["schedule"].isin(paper.TABLE_3)]
    theirs = pd.DataFrame([paper.TABLE_3[name] for name in shared["schedule"]])
    rows = []
    for kind, field in {"fid": "fid", "is": "is_", "nll": "nll"}.items():
        metric = sweep.column(kind)
        rho = p_value = float("nan")
        values = shared[f"{metric}_mean"].to_numpy()
        if len(set(values)) > 1 and len(values) >= 3:
            rho = float(spearmanr(values, theirs[field]).statistic)
            p_value = _permutation_p(values, theirs[field].to_numpy(), rho)
        rows.append(
            {
                "metric": metric,
                "paper_metric": paper.LABELS[kind],
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
