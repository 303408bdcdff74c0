"""Claims of the paper's section 4.4: mask schedules and the number of iterations."""

from collections.abc import Iterable, Sequence
from functools import partial

import pandas as pd

from analysis.exhibits.comparisons.claim import HYPOTHESIS, SCHEDULES, Claim, Part, Setup, versus
from analysis.exhibits.comparisons.inference import paired, rank_order
from analysis.exhibits.comparisons.seeds import by_seed, nested_choice, pairs
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import LOWER_IS_BETTER, metric_label, plain
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.inputs.sweep import Sweep

# The paper's three families (section 3.3); the third is linear.
CONCAVE = ("exponential", "cubic", "square", "cosine")
CONVEX = ("square_root", "logarithmic")
CHOOSING = 3  # fewest seeds for a test in which each has its T from another (docs/metrics.md)


def at_best_iterations(sweep: Sweep, kind: str) -> pd.DataFrame:
    """The rows of the sweep at each schedule's best T by a metric, T chosen by another seed.

    Returns:
        One row per schedule and seed.
    """
    chosen = [
        nested_choice(rows, "iterations", sweep.column(kind), kind)
        for _, rows in sweep.rows.groupby("schedule")
    ]
    return pd.concat(chosen, ignore_index=True)


def claims(results: Results, setup: Setup) -> list[Claim]:
    """Which schedule, how many iterations, and what of it is training and what decoding."""
    sweep, best_by = results.sweep, setup.best_by
    best = at_best_iterations(sweep, best_by)
    return [
        *_families(best, sweep, best_by),
        _sweet_spot(sweep, setup.mask_schedule, best_by),
        *_orders(best, sweep),
        *_crossed(results),
    ]


def _sign(kind: str) -> int:
    """The sign of a better value less a worse one."""
    return -1 if kind in LOWER_IS_BETTER else 1


def _families(best: pd.DataFrame, sweep: Sweep, kind: str) -> list[Claim]:
    """Cosine against each other schedule; concave against linear against convex ones."""
    metric = sweep.column(kind)
    values = {name: by_seed(rows, metric) for name, rows in best.groupby("schedule")}
    claim = partial(
        Claim,
        source="4.4, Table 3",
        exhibit="table3-table",
        shown_in="Table 3",
        measure=metric_label(metric, sweep.extractor),
        sign=_sign(kind),
        fewest=CHOOSING,
    )
    best_one, all_of_them = paper.BEST_SCHEDULE, tuple(paper.TABLE_3)
    known = values if best_one in values else {}
    rivals = [name for name in _found(all_of_them, known) if name != best_one]
    whole = len(rivals) in (0, len(all_of_them) - 1)
    linear = values.get("linear", pd.Series(dtype=float))
    return [
        claim(
            said=f"{best_one} is the best of the schedules{_partly(all_of_them, known)}",
            parts=_against(values, best_one, rivals),
            whole=f"**{best_one} is better than "
            f"{'every other schedule of the paper' if whole else _names(rivals)}**",
        ),
        claim(
            said=f"concave schedules{_partly(CONCAVE, values)} are better than linear",
            parts=_compared(*_mean("concave", CONCAVE, values), "linear", linear),
        ),
        claim(
            said=f"linear is better than convex schedules{_partly(CONVEX, values)}",
            parts=_compared("linear", linear, *_mean("convex", CONVEX, values)),
        ),
    ]


def _found(family: Sequence[str], among: Iterable[str]) -> list[str]:
    """Those of a family that were measured, in its order."""
    measured = set(among)
    return [name for name in family if name in measured]


def _partly(family: Sequence[str], values: Iterable[str]) -> str:
    """What a claim says of a family that was not swept whole."""
    found = _found(family, values)
    if len(found) in (0, len(family)):
        return ""
    return f" (of which {_names(found)} alone {'was' if len(found) == 1 else 'were'} swept)"


def _mean(kind: str, family: Sequence[str], values: dict[str, pd.Series]) -> tuple[str, pd.Series]:
    """What was swept of a family: how it is called, and its mean over schedules, by seed."""
    found = _found(family, values)
    if not found:
        return kind, pd.Series(dtype=float)
    mean = pd.concat([values[name] for name in found], axis=1).dropna().mean(axis=1)
    if len(found) < len(family):
        return f"the mean of {_names(found)}" if len(found) > 1 else _names(found), mean
    return f"the {kind} schedules' mean", mean


def _against(values: dict[str, pd.Series], name: str, rivals: list[str]) -> list[Part]:
    """A schedule against each of its rivals."""
    parts = []
    for rival in rivals:
        theirs, several = values[rival], len(rivals) > 1
        parts += _compared(name, values[name], plain(rival), theirs, several=several)
    return parts


def _compared(
    first: str, ours: pd.Series, second: str, theirs: pd.Series, *, several: bool = False
) -> list[Part]:
    """Two sides, paired by seed: one seed's trials share initialisation and batches."""
    a, b = pairs(ours, theirs)
    means = (a.mean(), b.mean())
    return [versus(first, second, paired(a, b), means, several=several)] if len(a) else []


def _sweet_spot(sweep: Sweep, schedule: str, kind: str) -> Claim:
    """The best T between the smallest and the largest, chosen by another seed, against both."""
    metric = sweep.column(kind)
    rows = sweep.rows[sweep.rows["schedule"] == schedule]
    steps = sorted(set(rows["iterations"]))
    parts = []
    if len(steps) > 2:
        inside = by_seed(nested_choice(rows, "iterations", metric, kind, steps[1:-1]), metric)
        for end in (steps[0], steps[-1]):
            outer = by_seed(rows[rows["iterations"] == end], metric)
            sides = ("the best T between them", inside, f"T = {end}", outer)
            parts += _compared(*sides, several=True)
    return Claim(
        said="quality peaks at a sweet spot of T and then worsens",
        source="4.4, Figure 8",
        exhibit="figure8",
        shown_in="Figure 8",
        measure=f"{plain(schedule)}, {metric_label(metric, sweep.extractor)}",
        sign=_sign(kind),
        fewest=CHOOSING,
        parts=parts,
        whole=f"**a T between {steps[0]} and {steps[-1]} is better than either**"
        if len(steps) > 2
        else "",
    )


def _orders(best: pd.DataFrame, sweep: Sweep) -> list[Claim]:
    """Spearman's ρ with the paper's ordering of the schedules, by each of its three metrics."""
    means = best.groupby("schedule").mean(numeric_only=True)
    shared = [name for name in paper.TABLE_3 if name in means.index]
    seeds = best["seed"].nunique()
    found = []
    for kind, field in {"fid": "fid", "is": "is_", "nll": "nll"}.items():
        metric = sweep.column(kind)
        label = metric_label(metric, sweep.extractor)
        theirs = [getattr(paper.TABLE_3[name], field) for name in shared]
        effect = rank_order(means.loc[shared, metric].to_numpy(), theirs)
        part = Part(
            effect=effect,
            won="**the ordering is like the paper's**",
            lost="**the ordering is the opposite of the paper's**",
            tied="the ordering agrees with the paper's no better than chance can",
            kind="Spearman's ρ",
        )
        found.append(
            Claim(
                said=f"the schedules rank as in the paper by {label}",
                source="4.4, Table 3",
                exhibit="rank_correlation-table",
                shown_in="Ordering",
                measure=label,
                sign=1,
                parts=[part],
                noise=SCHEDULES,
                lacking="" if seeds > 1 else "one seed alone orders them by its luck",
            )
        )
    return found


def _crossed(results: Results) -> list[Claim]:
    """Concave schedules against the others, in training and in decoding alone."""
    metric = results.metric("fid")
    sides = {"schedule": "training", "decoding_schedule": "decoding"}
    bent, others = list(CONCAVE), ["linear", *CONVEX]
    found = []
    for column, step in sides.items():
        rows = results.crossing
        ours, theirs = (_found(family, rows[column]) for family in (bent, others))
        first, second, crossed = "concave schedules", "linear or convex ones", ""
        if (ours, theirs) != (bent, others) and ours and theirs:
            first, second = _names(ours), _names(theirs)
            crossed = f" ({first} against {second})"
        parts = _compared(
            f"{step} with {first}",
            by_seed(rows[rows[column].isin(ours)], metric),
            f"{step} with {second}",
            by_seed(rows[rows[column].isin(theirs)], metric),
        )
        found.append(
            Claim(
                said=f"concave schedules help in {step}{crossed}",
                source=f"4.4, as a {HYPOTHESIS}",
                exhibit="crossing-table",
                shown_in="Crossing",
                measure=metric_label(metric, results.extractor),
                sign=_sign("fid"),
                parts=parts,
            )
        )
    return found


def _names(schedules: list[str]) -> str:
    *others, last = (plain(name) for name in schedules)
    return f"{', '.join(others)} and {last}" if others else last
