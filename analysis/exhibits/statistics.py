"""Means, intervals and tests over few seeds.

All tests are two-sided. The p of a t test is NaN for a single number, and for equal numbers, since
equal numbers do not prove that there is no noise.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from analysis.exhibits.results import Results

LEVEL = 0.95  # confidence level of every interval
ALPHA = 0.05  # a corrected p below this value decides a claim
NAN = math.nan
POWER, MOST = 0.8, 200  # the power that a test should have; the largest n that is considered
POINTS = 200  # values in the range of T at which `lowest` evaluates its parabola
ROUNDING = 1e-12  # numbers that differ by less, relative to the largest, count as equal


@dataclass(frozen=True)
class Effect:
    """An estimate with its interval and p."""

    value: float  # a difference, or a correlation; NaN if not measured
    low: float = NAN  # ends of the 95% interval; NaN if no interval can be computed
    high: float = NAN
    p: float = NAN  # two-sided, for a true value of zero; NaN if no test is possible
    n: int = 0  # number of independent values on the side with fewer values
    df: float = NAN  # degrees of freedom of the t test; NaN for other tests

    def one_sided(self, sign: int) -> float:
        """p of the one-sided test in the direction `sign`; NaN if `p` is NaN."""
        return self.p / 2 if self.value * sign > 0 else 1 - self.p / 2

    def power(self, level: float) -> tuple[float, float]:
        """The power of the t test at a level, if the true effect and variance are those measured,
        and the smallest n for a power of 80% (at most `MOST`). Both are NaN for other tests."""
        if math.isnan(self.df):
            return NAN, NAN
        n = np.arange(2, MOST + 1)
        df = self.df * (n - 1) / (self.n - 1)
        shift = stats.t.isf(self.p / 2, self.df) * np.sqrt(n / self.n)
        power = stats.nct.sf(stats.t.isf(level / 2, df), df, shift)
        return float(power[self.n - 2]), float(n[power >= POWER].min(initial=MOST))


def half_width(values: ArrayLike) -> float:
    """Half of the 95% t interval of the mean of independent values; NaN for fewer than two values,
    and for equal values."""
    numbers = np.asarray(values, float)
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) < 2 or _equal(numbers):
        return NAN
    return student(len(numbers)) * float(numbers.std(ddof=1)) / math.sqrt(len(numbers))


@cache
def student(n: int) -> float:
    """Half the width of the 95% t interval of the mean of n values, in standard errors."""
    return float(stats.t.ppf(0.5 + LEVEL / 2, n - 1))


def paired(first: ArrayLike, second: ArrayLike) -> Effect:
    """The mean difference of paired values, such as values paired by seed (paired t test)."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    differences, n = a - b, len(a)
    value = float(differences.mean()) if n else NAN
    if n < 2 or _equal(differences, float(np.abs([a, b]).max())):
        return Effect(value, n=n)
    return _tested(value, float(stats.sem(differences)), n - 1, n)


def contrast(logs: pd.DataFrame, first: Sequence[str], second: Sequence[str]) -> Effect:
    """The mean of the first group of treatments minus that of the second, in a randomised block
    design (planned contrast): one row per block (seed), one column per treatment (mask schedule).

    The error is pooled over all treatments, with (blocks − 1) · (treatments − 1) degrees of
    freedom. Errors (of log FID) are assumed to be independent and of equal variance.
    """
    n, treatments = logs.shape
    weights = logs.columns.isin(first) / len(first) - logs.columns.isin(second) / len(second)
    value, df = float(logs.mean().to_numpy() @ weights), (n - 1) * (treatments - 1)
    errors = logs.sub(logs.mean(axis=1), axis=0)
    errors -= errors.mean()
    if n < 2 or np.abs(errors.to_numpy()).max() <= ROUNDING * np.abs(logs.to_numpy()).max():
        return Effect(value, n=n)
    variance = float((errors.to_numpy() ** 2).sum()) / df
    return _tested(value, math.sqrt(variance * float(weights @ weights) / n), df, n)


def slope(values: pd.DataFrame, at: float, degree: int = 2) -> Effect:
    """Fit a polynomial in log₂ x to each row, where x is a column's name (such as T). Test the
    rows' slopes at x = `at` (one-sample t test). The effect is the mean slope per doubling."""
    if len(values.columns) <= degree:
        return Effect(NAN)
    fits = np.polyfit(np.log2(values.columns.to_numpy(float)), values.to_numpy().T, degree)
    powers = np.arange(degree, 0, -1)
    slopes = powers * math.log2(at) ** (powers - 1) @ fits[:-1]
    return paired(slopes, 0 * slopes)


def lowest(values: pd.DataFrame) -> tuple[float, float, float]:
    """Fit a parabola in log₂ x to the mean of the rows, where x is a column's name (such as T).
    Returns a tuple: the x of the lowest point within the columns' range, and the ends of the 95%
    interval of this x. The interval has all x at which the slope may be zero (Fieller). The ends
    are NaN if there is no such x."""
    steps = np.log2(values.columns.to_numpy(float))
    grid = np.linspace(steps[0], steps[-1], POINTS)
    best = grid[np.polyval(np.polyfit(steps, values.mean(), 2), grid).argmin()]
    level = [2**at for at in grid if slope(values, 2**at).p >= ALPHA] or [NAN]
    return float(2**best), float(level[0]), float(level[-1])


def _tested(value: float, error: float, df: float, n: int) -> Effect:
    """Student's t test of an estimate with a standard error of `df` degrees of freedom."""
    half = float(stats.t.ppf(0.5 + LEVEL / 2, df)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, df))
    return Effect(value, value - half, value + half, p, n, df)


def flipped(first: ArrayLike, second: ArrayLike) -> Effect:
    """The mean difference of paired values, with an exact sign-flip permutation test."""
    effect, differences = paired(first, second), np.subtract(first, second, dtype=float)
    if effect.n < 2:
        return effect
    test = stats.permutation_test(
        [differences],
        lambda flipped, axis: flipped.mean(axis),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    return replace(effect, p=float(test.pvalue), df=NAN)


def welch(first: ArrayLike, second: ArrayLike) -> Effect:
    """The difference of the means of two independent samples of unequal variance (Welch's t)."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    n = min(len(a), len(b))
    value = float(a.mean() - b.mean()) if n else NAN
    if n < 2 or (_equal(a) and _equal(b)):
        return Effect(value, n=n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one side may have equal numbers
        result = stats.ttest_ind(a, b, equal_var=False)
    interval = result.confidence_interval(LEVEL)
    p, df = float(result.pvalue), float(result.df)
    return Effect(value, float(interval.low), float(interval.high), p, n, df)


def separation(first: tuple[float, float], second: tuple[float, float], n: int) -> Effect:
    """Test if all n numbers of one side are below all n of the other side (exact permutation test),
    given each side's (least, greatest) number. The effect is the gap between these ranges, negative
    if the first range is lower. If the ranges overlap, the effect is 0 and p is 1."""
    below, above = first[1] - second[0], first[0] - second[1]
    if below < 0 or above > 0:
        return Effect(below if below < 0 else above, p=min(1.0, 2 / math.comb(2 * n, n)), n=n)
    return Effect(0.0, p=1.0, n=n)


def trend(values: pd.DataFrame, expected: Sequence[float]) -> Effect:
    """Whether the columns rank as expected in each row (seed): the mean of the rows' Spearman's ρ,
    with Page's test, whose null hypothesis is that all orderings of a row are equally likely.

    A row of equal values has ρ = 0. With only such rows, or under three columns, the effect is NaN.
    """
    n, items = values.shape
    equal = [items < 3 or _equal(row) for row in values.to_numpy()]
    if all(equal):
        return Effect(NAN, n=n)
    order, ranks = stats.rankdata(expected), stats.rankdata(values, axis=1)
    centred = order - order.mean()
    norm = np.sqrt(((ranks - order.mean()) ** 2).sum(axis=1) * (centred**2).sum())
    rho = np.mean(ranks @ centred / np.where(equal, 1, norm))
    if n < 2:
        return Effect(float(rho), n=n)
    tests = (stats.page_trend_test(side, predicted_ranks=order) for side in (ranks, -ranks))
    return Effect(float(rho), p=min(1.0, 2 * min(float(test.pvalue) for test in tests)), n=n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple comparisons (Holm 1979), and keep their order. The chance of
    any false positive at a corrected p below 5% is at most 5%, also for dependent tests. NaN (not
    tested) stays NaN and does not count as a comparison."""
    tested = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = [NAN] * len(p_values), 0.0
    for rank, (p, place) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        adjusted[place] = highest
    return adjusted


def _equal(values: np.ndarray, scale: float | None = None) -> bool:
    """Whether values are equal up to rounding errors relative to `scale` (or the largest value)."""
    largest = np.abs(values).max() if scale is None else scale
    return bool(np.ptp(values) <= ROUNDING * largest)


def by_seed(rows: pd.DataFrame, metric: str) -> pd.Series:
    """The mean of a metric for each seed. Rows without a seed or without the metric are ignored."""
    if metric not in rows:
        return pd.Series(dtype=float)
    return rows.dropna(subset=["seed", metric]).groupby("seed")[metric].mean()


def nested_choice(rows: pd.DataFrame, option: str, metric: str) -> pd.DataFrame:
    """For each seed, the row of the option that is best for the next seed. The first seed follows
    the last.

    A result would be biased if the same samples both chose the option and gave the result. Each
    seed chooses for only one other seed: if all seeds chose together, the reported values would be
    correlated, and a paired t test would find too many differences. A single seed chooses for
    itself. `rows` has one row per option and seed. The best option is the one with the lowest value
    in column `metric`, and the smallest one among equals. Options that some seeds lack are not
    chosen.
    """
    values = rows.pivot(index=option, columns="seed", values=metric).dropna()
    if values.empty:
        return rows.head(0)
    best = np.roll(values.to_numpy().argmin(axis=0), -1)
    chosen = pd.Series(values.index.to_numpy()[best], index=values.columns)
    return rows[rows[option] == rows["seed"].map(chosen)].sort_values("seed")


def chosen_options(rows: pd.DataFrame, option: str) -> str:
    """The option of each seed, in the order of the seeds: "8, 12, 8"; "8" if all are equal."""
    values = [f"{value:g}" for value in rows.sort_values("seed")[option]]
    return values[0] if len(set(values)) == 1 else ", ".join(values)


def over_seeds(rows: pd.DataFrame, keys: list[str], metrics: list[str]) -> pd.DataFrame:
    """Means over seeds, grouped and sorted by `keys`: the keys, the number of seeds, and the
    columns `<metric>_mean`, `<metric>_std` (sample standard deviation) and `<metric>_ci95` (half of
    the 95% t interval) of each metric. For one seed, std and ci95 are NaN."""
    cells = rows.groupby(keys, dropna=False)
    columns = {"seeds": cells["seed"].nunique()}
    for metric in metrics:
        columns[f"{metric}_mean"] = cells[metric].mean()
        columns[f"{metric}_std"] = cells[metric].std(ddof=1)
        columns[f"{metric}_ci95"] = cells[metric].agg(half_width)
    return pd.DataFrame(columns).reset_index()


def beside(ours: pd.DataFrame, theirs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Join our rows with the paper's columns; rows that only the paper has come last."""
    joined = ours.merge(theirs, how="left", on=keys)
    known = set(ours[keys].itertuples(index=False, name=None))
    new = [key not in known for key in theirs[keys].itertuples(index=False, name=None)]
    return pd.concat([joined, theirs[new]], ignore_index=True)


def of_one_set(rows: pd.DataFrame, metrics: list[str], halves: int) -> pd.DataFrame:
    """Metrics of single sets of images, with the columns of `over_seeds`. The 95% interval is over
    images, estimated from the standard deviation over random halves of a set. FID∞ has no
    interval: it varies more than FID does, and halves are too small to extrapolate from."""
    quantile = student(halves)  # the standard deviation of few halves is itself uncertain
    columns = {}
    for metric in metrics:
        columns[f"{metric}_mean"] = rows[metric]
        std = rows.get(f"{metric}_std", pd.Series(float("nan"), rows.index))
        columns[f"{metric}_std"] = std
        columns[f"{metric}_ci95"] = quantile * std.where(std > 0)  # equal halves prove nothing
    return pd.DataFrame(columns)


def with_real_images(
    cells: pd.DataFrame, results: Results, samples: float, keys: Mapping[str, Any]
) -> pd.DataFrame:
    """Append a row for real validation images, with means over disjoint sets of `samples` images,
    since FID depends on the size of a set. The row has no intervals. `keys` names it, such as
    {"model": "real images"}. No row is added if there are too few validation images."""
    rows = results.real[results.real["samples"] == samples]
    if rows.empty:
        return cells
    metrics = [name for name in rows.columns if name not in ("samples", "subset")]
    means = {f"{name}_mean": rows[name].mean() for name in metrics}
    row = pd.DataFrame([{**keys, "samples": samples, **means}])
    return pd.concat([cells, row], ignore_index=True)
