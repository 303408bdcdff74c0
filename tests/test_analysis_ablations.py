"""The ablations: label smoothing, and one schedule in training with another in decoding."""

import pandas as pd
import pytest

from tests.synthetic_tables import crossing_rows


def test_both_networks_have_a_row_for_each_label_smoothing(tables):
    table = pd.read_csv(tables / "smoothing.csv")
    assert list(table["model"]) == ["MaskGIT", "MaskGIT", "VQGAN∗", "VQGAN∗", "real images"]
    assert list(table["label_smoothing"].dropna()) == [0.1, 0.0, 0.1, 0.0]
    means = table["fid_classifier_mean"]
    assert list(means) == pytest.approx([3.52, 5.52, 4.53, 4.53, 0.125])
    text = (tables / "smoothing.md").read_text()
    assert "FID (classifier) of 1,000 samples, ± 95% interval over 3 training seeds" in text
    assert "with label smoothing 0: **VQGAN∗** is better than MaskGIT" in text


def test_schedules_are_crossed_with_the_lowest_of_each_row_and_column(tables):
    text = (tables / "crossing.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    grid = {row[0]: row for row in rows if row and len(row) == 7}
    # Seeds add 0, 0.02, 0.04 twice where both are cubic: 5 − 1 − 2 + 0.04 ± 4.3027 × 0.04 / √3.
    assert grid["cubic"][1] == "2.040 ± 0.099"
    cells = crossing_rows().groupby(["schedule", "decoding_schedule"])["fid_classifier"].mean()
    cells = cells.unstack()
    for name in cells.index:
        plain = name.replace("_", " ")
        assert grid[plain][5] == cells.loc[name].idxmin()
        assert float(grid[plain][6]) == pytest.approx(cells.loc[name].mean(), abs=5e-4)
    lowest = grid["lowest in the column"][1:5]
    assert lowest == [cells[name].idxmin() for name in ("cubic", "cosine", "linear", "square_root")]
    assert "100 samples a seed; as many real images have 0.500" in text
    assert "**training with cubic and cosine** is better than training with linear and" in text
    assert "**decoding with cubic and cosine** is better than decoding with linear and" in text
    assert len(pd.read_csv(tables / "crossing.csv")) == 16
