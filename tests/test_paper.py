"""The paper's numbers (`analysis.exhibits.inputs.paper`) against a second transcription of its
tables, `paper_numbers.csv`, and that against the paper's text, where it lies beside the project."""

import csv
import math
import re
from pathlib import Path
from typing import Any

import pytest

from analysis.exhibits.inputs import paper

ROOT = Path(__file__).parents[1]
PAPER = ROOT.parent / "shared/paper/maskgit.txt"
NOTES = ROOT.parent / "shared/notes/paper-notes.md"

Key = tuple[str, str, str]  # table, part of it, row
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
# The columns of the text's tables in their order, and what their headers have that no other has.
COLUMNS = {
    "1": ["FID", "IS", "precision", "recall", "parameters", "steps", "CAS top-1", "CAS top-5"],
    "2": ["FID", "IS"],
    "3": ["steps", "FID", "IS", "NLL"],
    "4": ["acceptance", "FID", "IS"],
    "5": ["precision", "recall", "CAS top-1", "CAS top-5"],
}
HEADERS = {
    "1": "| Model | FID | IS | Prec |",
    "2": "| Task | Model |",
    "3": "| FID | IS | NLL |",
    "4": "| Dataset | Model | Classifier guidance |",
    "5": "| Model | Prec | Rec | CAS |",
}
LABEL = re.compile(  # of a part of a table, or a part of one, in cells of their own
    r"(?:ImageNet )?(?:(256)256|(512)512)|ImageNet|(Outpainting|Inpainting)"
    r"|Right 50%|Center 50%50%"
)
NAMES = {"VQ-GAN∗": "VQGAN∗", "Boundless TF": "Boundless (TF)"}  # the text's, and ours


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
        ("1", "", "real images"): paper.TABLE_1_REAL,
        ("5", "", "real images"): paper.TABLE_5_REAL,
    }
    for side, models in paper.TABLE_1.items():
        tables |= {("1", str(side), name): row for name, row in models.items()}
    for task, scores in paper.TABLE_2.items():
        tables |= {("2", tasks[task], name): row for name, row in scores.items()}
    tables |= {("3", "", name): row for name, row in paper.TABLE_3.items()}
    for side, scores in paper.TABLE_4.items():
        tables |= {("4", str(side), name): row for name, row in scores.items()}
    tables |= {("5", "", name): row for name, row in paper.TABLE_5.items()}
    renamed = {"iterations": "steps", "top1": "cas_top1", "top5": "cas_top5"}
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


def test_no_number_of_the_paper_is_left_unchecked():
    constants = {name for name in vars(paper) if name.isupper()}
    tables = {"TABLE_1", "TABLE_1_REAL", "TABLE_2", "TABLE_3", "TABLE_4", "TABLE_5", "TABLE_5_REAL"}
    labels = {"FID", "IS", "NLL"}
    single = {"ACCEPTANCE", "MAX_SPEEDUP", "KNEE", "CHOICE_TEMPERATURE", "BEST_SCHEDULE"}
    assert constants == tables | labels | single


def test_the_best_schedule_is_that_of_the_best_fid_and_is():
    table = paper.TABLE_3
    assert min(table, key=lambda name: table[name].fid) == paper.BEST_SCHEDULE
    assert max(table, key=lambda name: table[name].is_) == paper.BEST_SCHEDULE


def test_the_papers_schedules_are_in_the_order_of_its_table():
    assert list(paper.TABLE_3) == [name for table, _, name in transcription() if table == "3"]


@pytest.fixture(scope="module")
def text() -> str:
    if not PAPER.exists():
        pytest.skip(f"the paper's text is not at {PAPER}")
    return PAPER.read_text(encoding="utf-8")


def rows_of(text: str, table: str) -> list[list[str]]:
    """The cells that hold something, in each row of a table of the text."""
    rows = []
    for line in text[text.index(HEADERS[table]) + 1 :].splitlines()[1:]:
        if not line.startswith("|") or line.startswith(tuple(HEADERS.values())):
            break
        rows.append([cell.strip() for cell in line.split("|") if cell.strip()])
    return rows


def plain(name: str) -> str:
    """A row's name without citations, footnote marks and size of images, as ours has it."""
    name = re.sub(r"\s*(\[\d+\]|[□◆†]|\(Ours\)|512$)\s*", " ", name).strip()
    return NAMES.get(name, name).replace("Square Root", "square_root")


@pytest.mark.parametrize("table", HEADERS)
def test_the_second_transcription_is_all_that_the_text_has(text, table):
    """Every row in the text's order, the numbers as strings."""
    expected = [
        (name.lower(), [row[column] for column in COLUMNS[table] if column in row])
        for (number, _, name), row in transcription().items()
        if number == table and name != "real images"
    ]
    labels: list[str] = []
    found = []
    for cells in rows_of(text, table):
        while cells and (label := LABEL.fullmatch(cells[0])):
            labels += filter(None, label.groups())
            cells = cells[1:]
        if cells and re.fullmatch(r"[\d.]+", cells[-1]):  # the head of a table has no numbers
            values = [re.sub(r"†$| acceptance rate$", "", cell) for cell in cells[1:]]
            found.append(
                (plain(cells[0]).lower(), [x for x in values if "guidance" not in x and x != "n/a"])
            )
    assert found == expected
    parts = [part for number, part, _ in transcription() if number == table and part]
    assert labels == list(dict.fromkeys(parts))


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (paper.TABLE_1_REAL.top1, "Top-1 ({:.1%}) | Top-5 (93.1%)"),
        (paper.TABLE_1_REAL.top5, "Top-1 (76.6%) | Top-5 ({:.1%})"),
        (paper.TABLE_5_REAL.top1, "Top-1 ({:.1%}) | Top-5 (91.5%)"),
        (paper.TABLE_5_REAL.top5, "Top-1 (73.1%) | Top-5 ({:.1%})"),
        (paper.ACCEPTANCE, "{} acceptance rate"),
        (paper.MAX_SPEEDUP, "accelerates autoregressive decoding by up to {}x"),
        (paper.KNEE, "there seems to exist an inflection point around {:.0%}"),
    ],
)
def test_numbers_of_its_sentences_are_in_the_text(text, number, sentence):
    printed = sentence.format(number)
    # The heads of the tables have their percentages without the sign.
    assert printed.replace("%", "") in text.replace("%", "")


def test_the_releases_choice_temperature_is_that_of_the_notes():
    if not NOTES.exists():
        pytest.skip(f"the notes on the release are not at {NOTES}")
    assert f"{paper.CHOICE_TEMPERATURE} · (1 − ratio) · Gumbel noise" in NOTES.read_text("utf-8")
