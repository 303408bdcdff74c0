"""Intervals and tests of few numbers: what a mean over seeds says of other seeds.

Every test is two-sided. Where nothing can be tested (one number, or several that are all equal) p
is NaN and nothing may be concluded: equal numbers are no proof that there is no noise.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.95  # of every interval
ALPHA = 0.05  # p below it, corrected for the other comparisons, decides
NAN = math.nan


@dataclass(frozen=True)
class Effect:
    """An estimate, and what is known of its noise.

    Args:
        value: a difference, or a correlation; NaN where it could not be measured.
        low: lower end of its 95% interval, as high the upper one; NaN where there is none.
        p: two-sided, of a true value of zero; NaN where nothing can be tested.
        n: how many independent numbers each side has, the fewer of the two.
    """

    value: float
    low: float = NAN
    high: float = NAN
    p: float = NAN
    n: int = 0

    def one_sided(self, sign: int) -> float:
        """p against the alternative that the true value has this sign; NaN where p is."""
        return self.p / 2 if self.value * sign > 0 else 1 - self.p / 2


def half_width(values: ArrayLike) -> float:
    """Half of the t interval (95%) of the mean of independent values; NaN for fewer than two, and
    for values that are all equal."""
    numbers = np.asarray(values, float)
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) < 2 or _equal(numbers):
        return NAN
    return student(len(numbers)) * float(numbers.std(ddof=1)) / math.sqrt(len(numbers))


@cache
def student(n: int) -> float:
    """How many standard errors of the mean of n values are half of its interval."""
    return float(stats.t.ppf(0.5 + LEVEL / 2, n - 1))


def one_sample(values: ArrayLike, constant: float = 0.0) -> Effect:
    """The mean of independent values less a number that has no noise of its own (Student's t)."""
    numbers = np.asarray(values, float)
    return paired(numbers, np.full_like(numbers, constant))


def paired(first: ArrayLike, second: ArrayLike) -> Effect:
    """The mean difference of values that belong together in pairs, by a seed (paired t)."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    differences, n = a - b, len(a)
    value = float(differences.mean()) if n else NAN
    if n < 2 or _equal(differences, float(np.abs([a, b]).max())):
        return Effect(value, n=n)
    half = half_width(differences)
    p = float(stats.ttest_1samp(differences, 0.0).pvalue)
    return Effect(value, value - half, value + half, p, n)


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
    return Effect(value, float(interval.low), float(interval.high), float(result.pvalue), n)


def separation(first: tuple[float, float], second: tuple[float, float], n: int) -> Effect:
    """Whether all of n numbers lie below all of n others: the exact permutation test.

    Args:
        first: the least and the greatest of the n numbers; so is second of the others.

    Returns:
        value: the gap between the two ranges, negative where the first lies below; 0 if they
        overlap, which has p = 1: the ranges alone then tell no more.
    """
    below, above = first[1] - second[0], first[0] - second[1]
    if below < 0 or above > 0:
        return Effect(below if below < 0 else above, p=min(1.0, 2 / math.comb(2 * n, n)), n=n)
    return Effect(0.0, p=1.0, n=n)


def rank_order(ours: ArrayLike, theirs: ArrayLike) -> Effect:
    """Spearman's ρ between two orderings of the same things, with the exact p over all orderings.

    Fewer than three things, or things that are all equal, have no ρ (NaN).
    """
    a, b = np.asarray(ours, float), np.asarray(theirs, float)
    n = len(a)
    if n < 3 or _equal(a) or _equal(b):
        return Effect(NAN, n=n)
    ranks, reference = stats.rankdata(a), stats.rankdata(b)
    rho = float(np.corrcoef(ranks, reference)[0, 1])
    orderings = _orderings(n)
    # Every ordering has the same norm, so ρ is proportional to the product with centred ranks.
    products = ranks[orderings] @ (reference - reference.mean())
    products /= ranks.std() * reference.std() * n
    return Effect(rho, p=float(np.mean(np.abs(products) >= abs(rho) - 1e-9)), n=n)


def holm(p_values: Sequence[float]) -> list[float]:
    """p corrected for all comparisons of the family (Holm 1979), in the order given.

    The chance that any true zero has a corrected p below 5% is at most 5%, whatever the dependence.
    NaN, which was not tested, stays NaN and does not count.
    """
    tested = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = [NAN] * len(p_values), 0.0
    for rank, (p, place) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        adjusted[place] = highest
    return adjusted


def _equal(values: np.ndarray, scale: float | None = None) -> bool:
    """Whether values differ by no more than the rounding of numbers as large as `scale`."""
    largest = np.abs(values).max() if scale is None else scale
    return bool(np.ptp(values) <= 1e-12 * largest)


@cache
def _orderings(n: int) -> np.ndarray:
    """(n!, n) every ordering of n places."""
    return np.array(list(permutations(range(n))))
