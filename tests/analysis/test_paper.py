"""The paper's numbers (`analysis.exhibits.paper`) against a second transcription of its
tables, `paper_numbers.csv`."""

import csv
import math
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from analysis.exhibits import paper

Key = tuple[str, str, str]  # table, part of it, row
Real = namedtuple("Real", "cas_top1 cas_top5")
FIELDS = {  # of paper.py's rows, by the transcription's columns
    "FID": "fid",
    "IS": "is_",
    "precision": "precision",
    "recall": "recall",
    "parameters": "parameters",
    "steps": "steps",
    "CAS top-1": "cas_top1",
    "CAS top-5": "cas_top5",
    "NLL": "nll",
}


def transcription() -> dict[Key, dict[str, str]]:
    """Every row of the CSV: column → value as printed."""
    with open(Path(__file__).with_name("paper_numbers.csv"), encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        (row.pop("table"), row.pop("part"), row.pop("row")): {k: v for k, v in row.items() if v}
        for row in rows
    }


def ours() -> dict[Key, dict[str, float]]:
    """Every number of the tables of paper.py, arranged like the transcription."""
    tasks = {"inpaint_center": "Inpainting", "outpaint_right": "Outpainting"}
    tables: dict[Key, Any] = {
        ("1", "", "real images"): Real(*paper.TABLE_1_REAL),
        ("5", "", "real images"): Real(*paper.TABLE_5_REAL),
    }
    for side, models in paper.TABLE_1.items():
        tables |= {("1", str(side), name): row for name, row in models.items()}
    for task, scores in paper.TABLE_2.items():
        tables |= {("2", tasks[task], name): row for name, row in scores.items()}
    tables |= {("3", "", name): row for name, row in paper.TABLE_3.items()}
    for side, scores in paper.TABLE_4.items():
        tables |= {("4", str(side), name): row for name, row in scores.items()}
    tables |= {("5", "", name): row for name, row in paper.TABLE_5.items()}
    renamed = {"iterations": "steps"}
    columns = {field: column for column, field in FIELDS.items()}
    found = {}
    for key, row in tables.items():
        values = {renamed.get(name, name): value for name, value in row._asdict().items()}
        found[key] = {columns[k]: value for k, value in values.items() if not math.isnan(value)}
        if key[0] == "4" and key[2] != "ADM":  # which has guidance in its stead
            found[key]["acceptance"] = paper.ACCEPTANCE
    return found


def value(column: str, text: str) -> float:
    """A number as it is printed, in the units of paper.py."""
    if column.startswith("CAS"):
        return float(text) / 100
    units = {"M": 1e6, "B": 1e9}
    return float(text[:-1]) * units[text[-1]] if text[-1] in units else float(text)


def test_every_number_of_the_tables_is_that_of_a_second_transcription():
    theirs = {
        key: {column: pytest.approx(value(column, text)) for column, text in row.items()}
        for key, row in transcription().items()
    }
    assert ours() == theirs


def test_the_best_schedule_is_that_of_the_best_fid_and_is():
    table = paper.TABLE_3
    assert min(table, key=lambda name: table[name].fid) == paper.BEST_SCHEDULE
    assert max(table, key=lambda name: table[name].is_) == paper.BEST_SCHEDULE
    assert list(table) == [name for number, _, name in transcription() if number == "3"]
