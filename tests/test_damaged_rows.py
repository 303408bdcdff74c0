"""Rows that a killed run has kept are looked at before they become results, though whole."""

import json
from pathlib import Path

import pytest

from pipeline.experiments.ablation.trial import Cell
from pipeline.experiments.reject import KEYS, _kept
from pipeline.runtime.checksums import write_noted
from pipeline.runtime.errors import UserError
from tests.errors import one_line

ROW = dict.fromkeys((*KEYS, "class_accuracy"), 1)
FOREIGN = [
    None,
    5,
    "text",
    [],
    {},
    [1, 2],
    [[]],
    [{}],
    {"rows": []},
    [ROW, None],
    [ROW, {"seed": 1}],
]


@pytest.mark.parametrize("value", FOREIGN, ids=json.dumps)
def test_rows_of_a_selection(tmp_path, value):
    cell = tmp_path / "0.8.json"
    write_noted(cell, value)
    with pytest.raises(UserError, match=r"0\.8\.json is damaged.*delete it") as error:
        _kept(cell)
    one_line(error)


def test_whole_rows_of_a_selection(tmp_path):
    write_noted(tmp_path / "0.8.json", [ROW, ROW])
    assert _kept(tmp_path / "0.8.json") == [ROW, ROW]


@pytest.mark.parametrize("value", [None, 5, [], {}, [ROW], {"seed": 1}], ids=json.dumps)
def test_the_row_of_a_cell(tmp_path, value):
    cell = Cell("cosine", 4, str(tmp_path))
    write_noted(cell.path, {"row": value, "timing": {}})
    with pytest.raises(UserError, match=r"T0004\.json is damaged.*delete it") as error:
        cell.row  # noqa: B018
    one_line(error)


def test_a_whole_row_of_a_cell(tmp_path: Path):
    row = {"schedule": "cosine", "seed": 1, "iterations": 4, "fid": 1.0}
    cell = Cell("cosine", 4, str(tmp_path))
    write_noted(cell.path, {"row": row, "timing": {}})
    assert cell.row == row
