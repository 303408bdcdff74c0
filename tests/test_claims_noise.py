"""What a report of pure noise says."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.exhibits.claims import UNDECIDED, judge
from analysis.exhibits.comparisons.inference import paired
from analysis.exhibits.comparisons.seeds import by_seed, nested_choice, pairs
from analysis.exhibits.inputs.results import read_results
from tests.noise import Noise
from tests.synthetic_results import curves_of

REPORTS = 200


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_of_reports_of_noise_one_in_twenty_at_most_decides_anything(results, params, seeds):
    noise = Noise(read_results(results, curves_of(results)), seeds)
    rng = np.random.default_rng(seeds)
    decided = 0
    for _ in range(REPORTS):
        verdicts = judge(noise.draw(rng), params)
        # All could be tested but what takes three seeds, so that nothing is open for want of a p.
        untested = [verdict for verdict in verdicts if math.isnan(verdict.p)]
        assert all(verdict.claim.fewest > seeds for verdict in untested)
        assert all("undecided" in v.sentence for v in verdicts if v.word == UNDECIDED)
        decided += any(verdict.word != UNDECIDED for verdict in verdicts)
    assert decided <= 0.05 * REPORTS


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("worse", "low", "high"), [(0.0, 0.03, 0.07), (1.0, 0.04, 0.1)])
def test_options_that_seeds_choose_for_each_other_keep_the_paired_test(seeds, worse, low, high):
    """Two sides of which each is as good as the other at every T, at the T's that were chosen; all
    T but one are worse, or none is."""
    rng = np.random.default_rng(seeds)
    options, times = (2, 4, 8, 12, 24), 1000
    index = pd.MultiIndex.from_product([range(seeds), options], names=["seed", "iterations"])
    found = 0
    for _ in range(times):
        sides = []
        for _ in range(2):
            fid = rng.normal(size=len(index)) + worse * (index.get_level_values(1) != 8)
            rows = pd.DataFrame({"fid": fid}, index=index).reset_index()
            sides.append(by_seed(nested_choice(rows, "iterations", "fid", "fid"), "fid"))
        found += paired(*pairs(*sides)).p < 0.05
    assert low < found / times < high  # three standard errors around what docs/metrics.md says
