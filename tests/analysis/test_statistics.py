"""Tests and intervals of few numbers, against values of statistics books and by simulation."""

import math
from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest

from analysis.exhibits import statistics as stats

# Student's own data (1908): extra hours of sleep of ten patients with two drugs. R's t.test gives
# for the pairs t = −4.0621, p = 0.002833, −2.4599 to −0.7001; for Welch t = −1.8608, p = 0.07939,
# −3.3655 to 0.2055.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_the_paired_test_has_the_values_of_students_sleep_data():
    effect = stats.paired(FIRST, SECOND)
    assert effect.value == pytest.approx(-1.58)
    assert (effect.low, effect.high) == pytest.approx((-2.4598858, -0.7001142))
    assert effect.p == pytest.approx(0.002832890, rel=1e-6)
    assert effect.n == 10


def test_welchs_test_has_the_values_of_students_sleep_data():
    effect = stats.welch(FIRST, SECOND)
    assert (effect.low, effect.high) == pytest.approx((-3.3654832, 0.2054832))
    assert effect.p == pytest.approx(0.07939414, rel=1e-6)
    # Where the other side alone varies: its own paired test against the number.
    effect, alone = stats.welch([5.0, 5.0, 5.0], FIRST), stats.paired(FIRST, [5.0] * 10)
    assert effect.p == pytest.approx(alone.p) and effect.value == pytest.approx(-alone.value)


def test_three_numbers_have_the_interval_of_the_table():
    # t of two degrees of freedom is 4.3027 at 97.5%; the standard error of 1, 2, 3 is 1/√3.
    assert stats.half_width([1.0, 2.0, 3.0]) == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert stats.half_width([1.0, 2.0, math.nan, 3.0]) == stats.half_width([1.0, 2.0, 3.0])
    assert all(map(math.isnan, map(stats.half_width, ([], [1.0], [0.1, 0.1], [0.3, 0.1 + 0.2]))))


@pytest.mark.parametrize("test", [stats.paired, stats.welch])
@pytest.mark.parametrize(
    ("first", "second"),
    # The last are equal up to the rounding of a sum.
    [([1.0], [2.0]), ([], []), ([1.0] * 3, [2.0] * 3), ([0.1 + 0.2, 0.3], [0.3, 0.3])],
)
def test_one_number_or_equal_numbers_have_no_p_and_no_interval(test, first, second):
    effect = test(np.array(first), np.array(second))
    assert math.isnan(effect.p) and math.isnan(effect.low) and math.isnan(effect.high)
    assert effect.n == len(first)


def test_ranges_apart_have_the_exact_p_of_all_ways_to_deal_them():
    # Of the C(6, 3) = 20 ways to deal six numbers into threes, 2 keep them apart.
    assert stats.separation((1, 2), (3, 4), 3).p == pytest.approx(2 / 20)
    assert (
        stats.separation((1, 2), (3, 4), 3).value == -1
        and stats.separation((3, 4), (1, 2), 3).value == 1
    )
    assert stats.separation((1, 3), (2, 4), 3).p == 1


def test_the_p_of_an_ordering_counts_all_orderings():
    ours, theirs = [1.0, 2.0, 4.0, 3.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0]
    effect = stats.rank_order(ours, theirs)
    assert effect.value == pytest.approx(1 - 6 * 2 / (5 * 24))
    orderings = np.array(list(permutations(range(5))))
    distances = ((orderings - np.arange(5)) ** 2).sum(axis=1)
    # ρ is at least 0.9 or at most −0.9 where Σd² is at most 2 or at least 38.
    assert effect.p == pytest.approx(np.mean((distances <= 2) | (distances >= 38)))
    assert math.isnan(stats.rank_order([1.0, 2.0], [1.0, 2.0]).value)
    assert math.isnan(stats.rank_order([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).value)


def test_sign_flips_count_every_sign():
    first, second = np.array([1.0, 2, 3, 4, 5]), np.zeros(5)
    assert stats.flipped(first, second).p == pytest.approx(2 / 32)
    first[1] = -2  # the sum is 11
    sums = [
        abs(sum(s * n for s, n in zip(signs, range(1, 6), strict=True)))
        for signs in product((1, -1), repeat=5)
    ]
    assert stats.flipped(first, second).p == pytest.approx(np.mean(np.array(sums) >= 11))
    assert stats.flipped(first, second).value == pytest.approx(11 / 5)
    assert math.isnan(stats.flipped([1.0], [0.0]).p)


def test_holm_is_the_example_by_hand():
    # 0.01 × 4, 0.02 × 3 and 0.03 × 2; the last is no less than the one before.
    adjusted = stats.holm([0.03, 0.01, math.nan, 0.04, 0.02])
    assert adjusted[:2] + adjusted[3:] == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert math.isnan(adjusted[2])
    assert stats.holm([0.7, 0.8]) == [1.0, 1.0] and stats.holm([]) == []


# Choices that seeds make for one another


def rows_of(values: list[list[float]]) -> pd.DataFrame:
    """A row for each seed and option: values[seed][option], of the options 2, 4, 8, …"""
    return pd.DataFrame(
        {"seed": seed, "iterations": 2 ** (place + 1), "fid": value}
        for seed, of_seed in enumerate(values)
        for place, value in enumerate(of_seed)
    )


def test_a_seed_has_no_part_in_the_choice_that_it_reports_on():
    # Seeds 0, 1 and 2 are best at 2, 4 and 8; each reports at the best of the next, the last at
    # that of the first.
    chosen = stats.nested_choice(rows_of([[0, 3, 9], [5, 4, 9], [7, 6, 5]]), "iterations", "fid")
    assert list(chosen["iterations"]) == [4, 8, 2]
    assert list(chosen["fid"]) == [3, 9, 7]
    assert stats.chosen_options(chosen, "iterations") == "4, 8, 2"


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ([[3, 1, 2]], [4]),  # one seed chooses for itself
        ([[1, 1], [1, 1]], [2, 2]),  # of equal options the smallest
        ([[3, 1, 2], [3, np.nan, 2]], [8, 8]),  # not one that a seed lacks
        ([[np.nan], [np.nan]], []),
    ],
)
def test_a_choice_is_of_what_all_seeds_have(values, chosen):
    found = stats.nested_choice(rows_of(values), "iterations", "fid")
    assert list(found["iterations"]) == chosen
