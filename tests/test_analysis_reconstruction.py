"""What the analysis makes of reconstructions from masked tokens."""

import math

import pandas as pd
import pytest

from analysis.exhibits.claims import judge
from analysis.exhibits.figure10 import _findings, by_mask_ratio
from analysis.exhibits.inputs.results import read_results
from tests.synthetic_results import curves_of
from tests.synthetic_tables import reconstruction_rows


def test_reconstructions_are_pooled_over_draws(tables):
    table = pd.read_csv(tables / "reconstruction.csv").set_index("mask_ratio")
    assert list(table.index) == [0, 0.5, 0.9, 0.95] and set(table["draws"]) == {2}
    assert set(table["seeds"]) == {3}
    # Seeds add 0, 0.03 and 0.06.
    assert table.loc[0.5, "psnr_sample"] == pytest.approx(18.03)
    assert table.loc[0.5, "psnr_sample_ci95"] == pytest.approx(4.30265 * 0.03 / 3**0.5, rel=1e-5)
    # Two draws with stds over images of 3 and 4: the root of their mean variance.
    assert table.loc[0.5, "psnr_sample_std"] == pytest.approx(math.sqrt((9 + 16) / 2))
    assert table.loc[0.9, "psnr_median"] == pytest.approx(14.8)


def test_one_seed_has_the_interval_over_images():
    rows = reconstruction_rows()
    cells = by_mask_ratio(rows[rows["seed"] == 0]).set_index("mask_ratio")
    # The median's std over the eight images is 3, as NumPy's (n); t at 97.5% of 7 degrees.
    assert cells.loc[0.5, "psnr_median_ci95"] == pytest.approx(2.3646 * 3 / 7**0.5, rel=1e-4)


def test_the_steepest_fall_of_psnr_is_found(outputs):
    # 13.04 dB at 90% and 10.55 at 95%.
    report = (outputs / "report.html").read_text()
    assert "most steeply between 90% and 95%: by 4.980 dB" in report
    assert (
        "<strong>PSNR falls more steeply from 90% to 95%</strong> of the tokens hidden than"
        in report
    )


def test_medians_may_be_missing(results):
    rows = pd.read_csv(results / "reconstruction/rows.csv")
    cells = by_mask_ratio(rows[rows["draw"] >= 0])
    assert cells["psnr_median"].isna().all() and cells["psnr_sample"].notna().all()


def test_falls_are_for_the_tokens_that_are_hidden_and_not_the_ratio_that_was_asked_for(
    results, params
):
    """Of 49 tokens 39, 44 and 47 are hidden: a straight fall has no knee."""
    rows = reconstruction_rows()
    rows["hidden"] = rows["mask_ratio"].map({0.0: 0.0, 0.5: 39 / 49, 0.9: 44 / 49, 0.95: 47 / 49})
    noise = rows["seed"] * rows["mask_ratio"] ** 2 / 100
    rows["psnr"] = 20 - 10 * rows["hidden"] + noise
    rows.to_csv(results / "reconstruction/rows.csv", index=False)
    found = judge(read_results(results, curves_of(results)), params)
    knee = next(v for v in found if v.claim.exhibit == "figure10").claim.parts[0]
    assert knee.values == pytest.approx((1, 1), abs=0.01)
    assert "from 90% to 96%" in knee.won and "from 80% to 90%" in knee.won


def test_where_two_ratios_hide_as_many_tokens_there_is_no_fall(results, params):
    rows = reconstruction_rows()
    rows["hidden"] = rows["mask_ratio"].map({0.0: 0.0, 0.5: 0.5, 0.9: 1.0, 0.95: 1.0})  # of four
    rows.to_csv(results / "reconstruction/rows.csv", index=False)
    read = read_results(results, curves_of(results))
    knee = next(v for v in judge(read, params) if v.claim.exhibit == "figure10").claim
    assert knee.parts == []
    assert "most steeply between 50% and 100%" in _findings(by_mask_ratio(read.reconstruction))[0]


def test_the_knee_is_set_against_the_step_before_it_and_not_the_whole_curve(results, params):
    """A curve that bends at one half and is straight from there on has no knee at 90%."""
    rows = reconstruction_rows()
    falls = {0.0: 0.0, 0.5: 1.0, 0.9: 9.0, 0.95: 10.0}  # 2 dB, then 20 dB for all of the tokens
    noise = rows["seed"] * rows["mask_ratio"] ** 2 / 100
    rows["psnr"] = 20 - rows["mask_ratio"].map(falls) + noise
    rows.to_csv(results / "reconstruction/rows.csv", index=False)
    found = judge(read_results(results, curves_of(results)), params)
    knee = next(v for v in found if v.claim.exhibit == "figure10").claim.parts[0]
    assert knee.values == pytest.approx((2, 2), abs=0.01)
    assert "from 90% to 95%" in knee.won and "from 50% to 90%" in knee.won
