"""Reading result files: a missing or damaged one is one line."""

import json
import math

import pandas as pd
import pytest

from analysis.exhibits.results import FILES, read_results
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_csv
from pipeline.runtime.tables import has_param, read_metrics, read_rows
from tests.errors import one_line


def test_rows_are_sorted_by_their_keys_and_none_is_a_word(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("name,seed,value\nnone,1,\nnan,2,3.5\nb,0,nan\n")
    rows = read_rows(path, ["name", "seed"], ["value"])
    assert rows["name"].fillna("?").tolist() == ["b", "none", "?"]
    assert [math.isnan(value) for value in rows["value"]] == [True, True, False]
    path.write_text("name,seed,value\n")
    assert read_rows(path, ["name", "seed"], ["value"]).empty
    with pytest.raises(UserError) as error:
        read_rows(path, ["name"], ["fid"])
    assert error.value.subject == str(path) and "fid" in error.value.reason


def test_a_metric_that_was_not_measured_is_nan(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"fid": None, "is": 2.5}))
    found = read_metrics(path, "fid")
    assert math.isnan(found["fid"]) and found["is"] == 2.5
    with pytest.raises(UserError, match="psnr"):
        read_metrics(path, "psnr")


def test_values_of_a_param_are_told_apart(tmp_path):
    values = [0.1, 0.1000001, 1 / 3, 0.0, 1e-9]
    write_csv(tmp_path / "t.csv", [{"label_smoothing": value} for value in [*values, None]])
    column = pd.read_csv(tmp_path / "t.csv")["label_smoothing"]
    for row, value in enumerate(values):
        assert list(column.index[has_param(column, value)]) == [row]


@pytest.mark.parametrize("content", [None, b"", b"\xff\0\xfe"])
@pytest.mark.parametrize("name", [name for name in FILES.values() if "." in name[2:]])
def test_a_result_that_is_missing_or_damaged_is_one_line(results, name, content):
    if content is None:
        (results / name).unlink()
    else:
        (results / name).write_bytes(content)
    with pytest.raises(UserError, match="dvc repro") as error:
        read_results(results)
    assert str(results / name) in one_line(error)
