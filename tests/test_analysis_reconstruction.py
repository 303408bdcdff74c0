"""What the analysis makes of reconstructions from masked tokens."""

import math

import pandas as pd
import pytest

from analysis.exhibits.figure10 import by_mask_ratio


def test_reconstructions_are_pooled_over_draws(tables):
    table = pd.read_csv(tables / "reconstruction.csv").set_index("mask_ratio")
    assert list(table.index) == [0, 0.5, 0.9] and set(table["draws"]) == {2}
    # Two draws with stds over images of 3 and 4: the root of their mean variance.
    assert table.loc[0.5, "psnr_sample"] == pytest.approx(18)
    assert table.loc[0.5, "psnr_sample_std"] == pytest.approx(math.sqrt((9 + 16) / 2))
    assert table.loc[0.9, "psnr_median"] == pytest.approx(9.8)


def test_the_steepest_fall_of_psnr_is_found(outputs):
    # 2 dB over half of the tokens, then 10 dB over four tenths.
    report = (outputs / "report.html").read_text()
    assert "<strong>most steeply between 50% and 90%</strong>: by 2.500 dB" in report


def test_medians_may_be_missing(results):
    rows = pd.read_csv(results / "reconstruction/rows.csv")
    cells = by_mask_ratio(rows[rows["draw"] >= 0])
    assert cells["psnr_median"].isna().all() and cells["psnr_sample"].notna().all()
