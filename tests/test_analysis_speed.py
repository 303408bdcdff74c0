"""What the analysis makes of timings: speedups, and a table apart from the others."""

import numpy as np
import pytest

from analysis.exhibits.figure4 import with_speedups
from tests.synthetic_results import analyse
from tests.synthetic_tables import speed_rows


def test_speedups_compare_the_same_tokens_and_batch():
    rows = speed_rows().sample(frac=1, random_state=0)
    cells = with_speedups(rows)
    for row in cells.to_dict("records"):
        if row["method"] == "maskgit":
            assert row["speedup_ar_uncached"] == pytest.approx(row["tokens"] / 4)
            assert row["speedup_ar_cached"] == pytest.approx(2)
        else:
            assert np.isnan(row["speedup_ar_uncached"]) and np.isnan(row["speedup_ar_cached"])


def test_a_size_without_a_baseline_has_no_speedup():
    rows = speed_rows()
    alone = (rows["tokens"] == 256) & (rows["method"] == "ar_uncached") & (rows["batch_size"] == 1)
    cells = with_speedups(rows[~alone]).query("method == 'maskgit' and batch_size == 1")
    assert list(cells["speedup_ar_uncached"].isna()) == [False, False, True]
    assert list(cells["speedup_ar_cached"]) == pytest.approx([2, 2, 2])


def test_the_speed_table_is_kept_apart_and_says_what_the_paper_compares(outputs):
    assert not (outputs / "tables/speed.csv").exists()
    text = (outputs / "timings/speed.md").read_text()
    assert "nor whether its baseline had a cache" in text and "on cpu with 2 threads" in text
    assert "does not say whether that had a cache" in (outputs / "report.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_tables_without_times_are_the_same_bytes_whatever_the_times(results, params, tmp_path):
    """Also the corrected p in the notes below them."""
    tables, boards = [], []
    for longest in (0.01, 10.0):  # seconds: MaskGIT is the fastest, or no timing can be told apart
        rows = speed_rows()
        rows["high"] = np.maximum(rows["high"], longest)
        rows.to_csv(results / "speed_timings.csv", index=False)
        out = tmp_path / str(longest)
        analyse(results, out, params)
        tables.append({path.name: path.read_bytes() for path in (out / "tables").iterdir()})
        boards.append((out / "timings/scoreboard.csv").read_bytes())
    assert len(tables[0]) > 20 and tables[0] == tables[1]
    assert boards[0] != boards[1]
