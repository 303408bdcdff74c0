"""`analysis.exhibits.paper` against a second transcription of the tables, `paper_numbers.csv`."""

import csv
from pathlib import Path

import pytest

from analysis.exhibits import paper

COLUMNS = {  # field of a row in paper.py -> column of the transcription
    **{"fid": "FID", "is_": "IS", "nll": "NLL", "iterations": "steps"},
    **{"cas_top1": "CAS top-1", "cas_top5": "CAS top-5"},
}
UNITS = {"M": 1e6, "B": 1e9}


def value(column: str, text: str) -> float:
    """Convert a printed number to the units of paper.py."""
    number = float(text.rstrip("MB")) * UNITS.get(text[-1], 1)
    return number / 100 if column.startswith("CAS") else number


def ours() -> dict[tuple[str, str, str], dict[str, float]]:
    """Return all numbers of the tables in paper.py, arranged like the transcription."""
    tasks = {"inpaint_center": "Inpainting", "outpaint_right": "Outpainting"}
    parts = {("1", str(side)): rows for side, rows in paper.TABLE_1.items()}
    parts |= {("2", tasks[task]): rows for task, rows in paper.TABLE_2.items()}
    parts |= {("3", ""): paper.TABLE_3, ("5", ""): paper.TABLE_5}
    parts |= {("4", str(side)): rows for side, rows in paper.TABLE_4.items()}
    found = {
        (*part, name): {COLUMNS.get(k, k): v for k, v in row._asdict().items() if v == v}
        for part, rows in parts.items()
        for name, row in rows.items()
    }
    for table, real in (("1", paper.TABLE_1_REAL), ("5", paper.TABLE_5_REAL)):
        found[table, "", "real images"] = dict(zip(("CAS top-1", "CAS top-5"), real, strict=True))
    for key in found:
        if key[0] == "4" and key[2] != "ADM":  # ADM uses guidance, not rejection
            found[key]["acceptance"] = paper.ACCEPTANCE
    return found


def test_every_number_of_the_tables_is_that_of_a_second_transcription():
    with open(Path(__file__).with_name("paper_numbers.csv"), encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    theirs = {
        (row.pop("table"), row.pop("part"), row.pop("row")): {
            column: pytest.approx(value(column, text)) for column, text in row.items() if text
        }
        for row in rows
    }
    assert ours() == theirs
    assert [name for table, _, name in theirs if table == "3"] == list(paper.TABLE_3)
