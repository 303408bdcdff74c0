"""Tests and intervals of few values, against textbooks, hand calculations and simulations."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest

from analysis.exhibits import statistics as stats

# Student's sleep data (1908): extra hours of sleep of ten patients with two drugs. R's paired
# t.test gives t = −4.0621, p = 0.002833 and the interval −2.4599 to −0.7001. R's Welch test gives
# t = −1.8608, p = 0.07939 and the interval −3.3655 to 0.2055.
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
    # If one side is constant, the test equals a paired test of the other side against it.
    effect, alone = stats.welch([5.0, 5.0, 5.0], FIRST), stats.paired(FIRST, [5.0] * 10)
    assert effect.p == pytest.approx(alone.p) and effect.value == pytest.approx(-alone.value)


def test_three_numbers_have_the_interval_of_the_table():
    # t with two degrees of freedom is 4.3027 at 97.5%. The standard error of 1, 2, 3 is 1/√3.
    assert stats.half_width([1.0, 2.0, 3.0]) == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert stats.half_width([1.0, 2.0, math.nan, 3.0]) == stats.half_width([1.0, 2.0, 3.0])
    assert all(map(math.isnan, map(stats.half_width, ([], [1.0], [0.1, 0.1], [0.3, 0.1 + 0.2]))))


@pytest.mark.parametrize("test", [stats.paired, stats.welch])
@pytest.mark.parametrize(
    ("first", "second"),
    # The values of the last case are equal up to rounding errors.
    [([1.0], [2.0]), ([], []), ([1.0] * 3, [2.0] * 3), ([0.1 + 0.2, 0.3], [0.3, 0.3])],
)
def test_one_number_or_equal_numbers_have_no_p_and_no_interval(test, first, second):
    effect = test(np.array(first), np.array(second))
    assert math.isnan(effect.p) and math.isnan(effect.low) and math.isnan(effect.high)
    assert effect.n == len(first)


def test_ranges_apart_have_the_exact_p_of_all_ways_to_deal_them():
    # Six numbers can be split into threes in C(6, 3) = 20 ways; 2 of them separate the ranges.
    assert stats.separation((1, 2), (3, 4), 3).p == pytest.approx(2 / 20)
    assert (
        stats.separation((1, 2), (3, 4), 3).value == -1
        and stats.separation((3, 4), (1, 2), 3).value == 1
    )
    assert stats.separation((1, 3), (2, 4), 3).p == 1


def test_a_contrast_in_blocks_is_the_example_by_hand():
    # The treatment means are 1.5, 3.5 and 7, and the block means 3 and 5. The residuals of the
    # first two treatments are ±0.5, so the mean square is 1 / 2, the standard error is
    # √(0.5 · 1.5 / 2), and t² = 54. With two degrees of freedom, p = 1 − √(t² / (t² + 2)).
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 5.0], "c": [6.0, 8.0]})
    effect = stats.contrast(table, ["c"], ["a", "b"])
    assert (effect.value, effect.df, effect.n) == (4.5, 2, 2)
    assert effect.p == pytest.approx(1 - (54 / 56) ** 0.5)
    # With two treatments, the contrast is a paired t test.
    sleep = pd.DataFrame({"a": FIRST, "b": SECOND})
    effect, paired = stats.contrast(sleep, ["a"], ["b"]), stats.paired(FIRST, SECOND)
    assert (effect.p, effect.low, effect.high) == pytest.approx((paired.p, paired.low, paired.high))
    for few in (table.head(1), pd.DataFrame({"a": [1.0, 2.0], "b": [0.1 + 1.2, 2.3]})):
        assert math.isnan(stats.contrast(few, ["a"], ["b"]).p)


def test_the_p_of_a_trend_counts_all_orderings_of_each_row():
    # Page's L of three items is 14 for one ordering and 13 for two; 5 of 36 pairs sum to ≥ 27.
    effect = stats.trend(pd.DataFrame([[1.0, 2.0, 3.0], [10.0, 30.0, 20.0]]), [4, 5, 9])
    assert (effect.value, effect.n) == (0.75, 2) and effect.p == pytest.approx(2 * 5 / 36)
    effect = stats.trend(pd.DataFrame([[3.0, 2.0, 1.0]] * 2), [4, 5, 9])
    assert effect.value == pytest.approx(-1) and effect.p == pytest.approx(2 / 36)
    assert stats.trend(pd.DataFrame([[1.0] * 3, [1.0, 2.0, 3.0]]), [1, 2, 3]).value == 0.5
    for unordered in ([[1.0, 2.0]] * 2, [[1.0] * 3] * 2):
        assert math.isnan(stats.trend(pd.DataFrame(unordered), range(3)[: len(unordered[0])]).value)


def test_the_slope_and_the_lowest_point_of_a_parabola():
    t = np.array([1, 2, 4, 8, 16])
    rows = pd.DataFrame([(np.log2(t) - 2) ** 2 + k * np.log2(t) / 10 for k in (0, 1, 2)], columns=t)
    # At T = 1, the rows' slopes are −4, −3.9, −3.8: mean −3.9, standard error 0.1 / √3.
    effect = stats.slope(rows, 1)
    assert (effect.low, effect.high) == pytest.approx((-3.9 - 0.248414, -3.9 + 0.248414))
    assert stats.slope(rows, 16).value == pytest.approx(4.1)
    # The mean slope 2 (log₂ T − 2) + 0.1 is zero at log₂ T = 1.95, with a half width of 0.1242.
    best, low, high = stats.lowest(rows)
    assert best == pytest.approx(2**1.95, rel=0.02)
    assert (low, high) == pytest.approx((2 ** (1.95 - 0.1242), 2 ** (1.95 + 0.1242)), rel=0.02)
    assert math.isnan(stats.lowest(rows.head(1))[1]) and math.isnan(stats.slope(rows[[1]], 1).value)


def test_power_has_the_values_of_r():
    # R: power.t.test(n = 10, delta = 1, sd = 1, type = "one.sample"): 0.8030969; n = 9: 0.7479.
    values = np.arange(10.0)
    values = 1 + (values - values.mean()) / values.std(ddof=1)
    power, needed = stats.paired(values, 0 * values).power(0.05)
    assert power == pytest.approx(0.8030969, abs=1e-5) and needed == 10
    assert all(map(math.isnan, stats.separation((1, 2), (3, 4), 3).power(0.05)))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_of_pure_noise_one_in_twenty_at_most_is_significant(n):
    rng, draws = np.random.default_rng(n), 200
    steps, names = [1, 2, 4, 8], list("abcdefg")
    found = {"contrast": [], "trend": [], "slope": []}
    for _ in range(draws):
        shared = rng.standard_normal((n, 1))  # a seed's effect on all values of its row
        table = pd.DataFrame(shared + rng.standard_normal((n, 7)), columns=names)
        found["contrast"].append(stats.contrast(table, ["a", "b"], ["c"]).p < 0.05)
        found["trend"].append(stats.trend(table, range(7)).p < 0.05)
        # Errors of one model are correlated: noise adds up along T. The parabola is flat at T = 4.
        noise = shared + rng.standard_normal((n, 4)).cumsum(axis=1) + (np.log2(steps) - 2) ** 2
        found["slope"].append(stats.slope(pd.DataFrame(noise, columns=steps), 4).p < 0.05)
    bound = 0.05 + 2 * math.sqrt(0.05 * 0.95 / draws)
    assert {name: np.mean(each) <= bound for name, each in found.items()} == dict.fromkeys(
        found, True
    )


def test_sign_flips_count_every_sign():
    first, second = np.array([1.0, 2, 3, 4, 5]), np.zeros(5)
    assert stats.flipped(first, second).p == pytest.approx(2 / 32)
    first[1] = -2  # the sum is now 11
    sums = [
        abs(sum(s * n for s, n in zip(signs, range(1, 6), strict=True)))
        for signs in product((1, -1), repeat=5)
    ]
    assert stats.flipped(first, second).p == pytest.approx(np.mean(np.array(sums) >= 11))
    assert stats.flipped(first, second).value == pytest.approx(11 / 5)
    assert math.isnan(stats.flipped([1.0], [0.0]).p)


def test_holm_is_the_example_by_hand():
    # The p-values are multiplied by 4, 3, 2 and 1; 0.04 × 1 is raised to the preceding 0.06.
    adjusted = stats.holm([0.03, 0.01, math.nan, 0.04, 0.02])
    assert adjusted[:2] + adjusted[3:] == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert math.isnan(adjusted[2])
    assert stats.holm([0.7, 0.8]) == [1.0, 1.0] and stats.holm([]) == []


# Options that another seed chooses


def rows_of(values: list[list[float]]) -> pd.DataFrame:
    """Return one row per seed and option, with FID = values[seed][option] at T = 2, 4, 8, …"""
    return pd.DataFrame(
        {"seed": seed, "iterations": 2 ** (place + 1), "fid": value}
        for seed, of_seed in enumerate(values)
        for place, value in enumerate(of_seed)
    )


def test_a_seed_has_no_part_in_the_choice_that_it_reports_on():
    # Seeds 0, 1 and 2 are best at T = 2, 4 and 8. Each seed is reported at the best T of the next
    # seed, and the last seed at the best T of the first.
    chosen = stats.nested_choice(rows_of([[0, 3, 9], [5, 4, 9], [7, 6, 5]]), "iterations", "fid")
    assert list(chosen["iterations"]) == [4, 8, 2]
    assert list(chosen["fid"]) == [3, 9, 7]
    assert stats.chosen_options(chosen, "iterations") == "4, 8, 2"


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ([[3, 1, 2]], [4]),  # a single seed chooses for itself
        ([[1, 1], [1, 1]], [2, 2]),  # the smallest of equal options is chosen
        ([[3, 1, 2], [3, np.nan, 2]], [8, 8]),  # an option that a seed lacks is not chosen
        ([[np.nan], [np.nan]], []),
    ],
)
def test_a_choice_is_of_what_all_seeds_have(values, chosen):
    found = stats.nested_choice(rows_of(values), "iterations", "fid")
    assert list(found["iterations"]) == chosen
