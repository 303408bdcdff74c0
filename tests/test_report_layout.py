"""How a table is laid out: the paper's value under ours, runs of the same as one cell, bands."""

import pandas as pd

from analysis.report.layout import COLUMN, Cell, layout


def texts(band) -> list[list[str]]:
    return [[cell.text for cell in row if cell] for row in band.rows]


def test_the_papers_values_stand_under_ours():
    frame = pd.DataFrame(
        {"model": ["MaskGIT", "real"], "FID ±": ["1.0", "0.5"], "FID (paper, X)": ["6.18", "–"]}
    )
    (band,) = layout(frame).bands
    assert [h.text for h in band.headings] == ["model", "FID\u00a0±"]
    assert band.headings[1].paper == "paper, X"
    assert band.rows[0][1] == Cell("1.0", "6.18", words=False)
    assert band.rows[1][1] == Cell("0.5", "", words=False)


def test_our_dash_goes_where_the_row_is_the_papers_alone_and_stays_where_ours_has_no_value():
    frame = pd.DataFrame(
        {
            "model": ["MaskGIT", "BigGAN"],
            "FID": ["–", "–"],
            "FID (paper)": ["6.18", "6.95"],
            "samples": ["10", "–"],
        }
    )
    (band,) = layout(frame).bands
    assert texts(band) == [["MaskGIT", "–", "10"], ["BigGAN", "", "–"]]


def test_repeated_names_of_rows_are_one_cell():
    frame = pd.DataFrame({"task": ["a", "a", "b"], "model": ["x", "y", "x"], "FID": list("111")})
    (band,) = layout(frame).bands
    assert [row[0].rows if row[0] else None for row in band.rows] == [2, None, 1]
    assert texts(band) == [["a", "x", "1"], ["y", "1"], ["b", "x", "1"]]  # numbers never merge


def test_what_is_too_wide_goes_on_below_with_its_rows_named_again_and_empty_rows_left_out():
    wide = {f"metric {i}": ["1" * 30, "–"] for i in range(6)}
    frame = pd.DataFrame({"model": ["MaskGIT", "BigGAN"]} | wide | {"last": ["2", "3"]})
    bands = layout(frame).bands
    assert len(bands) == 2 and COLUMN < 6 * 236
    assert [heading.text for band in bands for heading in band.headings[1:]] == [*wide, "last"]
    assert texts(bands[0])[0][0] == texts(bands[1])[0][0] == "MaskGIT"
    assert [len(band.rows) for band in bands] == [1, 2]


def test_what_every_interval_is_over_is_said_once():
    over = "± 95% interval over 3 training seeds"
    frame = pd.DataFrame({"model": ["a"], f"FID, {over}": ["1"], f"IS, {over}": ["1"]})
    laid = layout(frame)
    assert laid.interval == over
    assert [heading.text for heading in laid.bands[0].headings] == [
        "model",
        "FID\u00a0±",
        "IS\u00a0±",
    ]
    mixed = layout(frame.assign(**{"CAS ±": "1"}))  # whose ± is over something else
    assert mixed.interval == "" and over in mixed.bands[0].headings[1].text.replace("\u00a0", " ")
