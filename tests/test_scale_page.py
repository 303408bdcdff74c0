"""docs/scale.md: its statistics, and that its tables and curves are of the rows beside it."""

import importlib.util
import math

import pandas as pd
import pytest
from scipy import stats

from tests.project import ROOT

PATH = ROOT / "docs/scale/report.py"


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("scale_report", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(*lines: tuple) -> pd.DataFrame:
    """Rows of (network, decode_schedule, seed, steps, iterations, choice_temperature, FID)."""
    columns = "network decode_schedule seed steps iterations choice_temperature fid_classifier"
    return pd.DataFrame(lines, columns=columns.split())


ROWS = rows(
    ("cosine", "cosine", 1, 300, 8, 4.5, 3.0),
    ("cosine", "cosine", 0, 300, 8, 4.5, 1.0),
    ("cosine", "cosine", 2, 300, 8, 4.5, 2.0),
    ("cosine", "cosine", 0, 300, 8, 9.0, 7.0),
    ("cosine", "linear", 0, 300, 8, 4.5, 8.0),
    ("cosine", "cosine", 0, 300, 4, 4.5, 9.0),
    ("autoregressive", math.nan, 0, 300, 49, math.nan, 0.5),
    ("autoregressive", math.nan, 1, 300, 49, math.nan, 2.0),
)
COSINE, BASELINE = {"network": "cosine", "iterations": 8}, {"network": "autoregressive"}


def test_usual_decoding_is_meant_unless_another_is_named(report):
    fid = report.FID
    assert report.by_seed(ROWS, COSINE, fid).to_dict() == {0: 1.0, 1: 3.0, 2: 2.0}
    assert report.by_seed(ROWS, COSINE | {"decode_schedule": "linear"}, fid).to_dict() == {0: 8.0}
    assert report.by_seed(ROWS, COSINE | {"choice_temperature": 9.0}, fid).to_dict() == {0: 7.0}
    with pytest.raises(AssertionError, match="several rows"):
        report.by_seed(ROWS, {"network": "cosine"}, fid)


def test_the_baseline_stands_beside_every_number_of_iterations(report):
    for where in (BASELINE, BASELINE | {"iterations": 8}, BASELINE | {"iterations": 4}):
        assert report.by_seed(ROWS, where, report.FID).to_dict() == {0: 0.5, 1: 2.0}


def test_intervals_are_of_students_t(report):
    # Tabled quantiles of t at 97.5%: 4.303 for 2 degrees of freedom, 12.706 for 1.
    assert report.text(pd.Series([1.0, 2.0, 3.0])) == f"2.00 ± {4.303 / math.sqrt(3):.2f} (3)"
    assert report.text(pd.Series([0.0, 2.0])) == "1.00 ± 12.71 (2)"
    assert report.text(pd.Series([1.234])) == "1.23 (1)"
    assert report.text(pd.Series(dtype=float)) == "–"


def test_settings_are_compared_seed_by_seed(report):
    table = report.comparisons(ROWS, [("gap", report.FID, COSINE, BASELINE)])
    # Seeds 0 and 1 only: 1 − 0.5 and 3 − 2.
    assert "0.75 ± 3.18 (2)" in table
    assert f"{stats.ttest_rel([1, 3], [0.5, 2]).pvalue:.3f}" in table


def test_holms_correction(report):
    # Worked by hand: sorted 0.01·3, 0.02·2 and 0.04·1, each at least the one before.
    assert report.holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    first, second, third = report.holm([0.3, math.nan, 0.9])  # what is no test counts for none
    assert (first, third) == pytest.approx((0.6, 0.9)) and math.isnan(second)
    assert report.holm([0.6, 0.7]) == [1.0, 1.0]


def test_other_networks_have_a_line_each_and_a_column_for_each_number_of_steps(report):
    shape = {"layers": 2, "hidden": 8, "mlp": 16, "dropout": 0.0, "otherwise": None}
    measured = {"network": "cosine", "fid_classifier": 1.234, "class_accuracy": 0.567}
    first, longer = (shape | measured | {"steps": steps} for steps in (200, 600))
    other = first | {"otherwise": "lr 6e-3", "fid_classifier": 9.0}
    lines = report.sizes(pd.DataFrame([first, longer, other])).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][-2:] == ["200 steps", "600 steps"]
    assert [line[-3:] for line in cells[2:]] == [
        ["", "1.23, 57%", "1.23, 57%"],
        ["lr 6e-3", "9.00, 57%", "–"],
    ]


def test_the_page_holds_the_tables_of_its_rows(report):
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.filled(page, report.tables(report.load())) == page


def test_the_page_shows_every_curve(report, tmp_path):
    report.figures(report.load(), tmp_path, dpi=30)
    made = {path.name for path in tmp_path.glob("*.png")}
    page = report.PAGE.read_text(encoding="utf-8")
    assert made == {name for name in made if f"(scale/{name})" in page}
    assert made == {path.name for path in report.FOLDER.glob("*.png")}
