"""Choices that seeds make for one another."""

import numpy as np
import pandas as pd
import pytest

from analysis.exhibits.comparisons.seeds import chosen_options, nested_choice


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
    chosen = nested_choice(rows_of([[0, 3, 9], [5, 4, 9], [7, 6, 5]]), "iterations", "fid", "fid")
    assert list(chosen["iterations"]) == [4, 8, 2]
    assert list(chosen["fid"]) == [3, 9, 7]
    assert chosen_options(chosen, "iterations") == "4, 8, 2"
    higher = nested_choice(rows_of([[0, 3, 9], [5, 4, 9], [7, 6, 8]]), "iterations", "fid", "is")
    assert chosen_options(higher, "iterations") == "8"


def test_one_seed_chooses_for_itself_and_equal_options_give_the_smallest():
    assert list(nested_choice(rows_of([[3, 1, 2]]), "iterations", "fid", "fid")["iterations"]) == [
        4
    ]
    equal = nested_choice(rows_of([[1, 1], [1, 1]]), "iterations", "fid", "fid")
    assert list(equal["iterations"]) == [2, 2]


def test_options_that_a_seed_lacks_are_not_chosen():
    rows = rows_of([[3, 1, 2], [3, np.nan, 2]])
    assert list(nested_choice(rows, "iterations", "fid", "fid")["iterations"]) == [8, 8]
    nothing = rows.assign(fid=np.nan)
    assert nested_choice(nothing, "iterations", "fid", "fid").empty


def test_a_choice_among_noise_is_not_flattered():
    """The best of ten on the same samples looks good by its luck; nested, it is just average."""
    rng = np.random.default_rng(0)
    same, nested = [], []
    for _ in range(300):
        rows = rows_of(rng.normal(size=(3, 10)).tolist())
        nested.append(nested_choice(rows, "iterations", "fid", "fid")["fid"].mean())
        same.append(rows.groupby("iterations")["fid"].mean().min())
    assert np.mean(nested) == pytest.approx(0, abs=0.12) and np.mean(same) < -0.7
