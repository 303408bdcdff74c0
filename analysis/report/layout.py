"""Lay out the tables of the report to fit its column: the paper's value stands under ours, repeated
cells are merged, and a table that is still too wide continues in a band below."""

import re
from dataclasses import dataclass, replace
from itertools import groupby

import pandas as pd

from analysis.exhibits.formatting import NONE, is_text

COLUMN = 985  # CSS pixels that the report's column has in a window of 1280
LETTER, BOLD, PADDING, LEAST = 7.2, 8.2, 20, 50  # of a cell
INTERVAL = re.compile(r", (± 95% interval over .+)$")
PAPER = re.compile(r" \((paper.*)\)$")


@dataclass(frozen=True)
class Cell:
    """A value or a heading, with the paper's below it. It spans `rows` rows; `words` says that its
    column holds no numbers."""

    text: str
    paper: str = ""
    words: bool = False
    rows: int = 1


@dataclass(frozen=True)
class Band:
    """The columns that name a row, and some of the others; None where a cell above spans the
    row."""

    headings: list[Cell]
    rows: list[list[Cell | None]]


@dataclass(frozen=True)
class Layout:
    """The bands of a table, and what all its "±" mean (empty if they differ)."""

    bands: list[Band]
    interval: str


@dataclass(frozen=True)
class _Column:
    heading: Cell
    cells: list[Cell]

    @property
    def width(self) -> float:
        words = [BOLD * len(word) for word in re.split("[ -]", self.heading.text)]
        cells = [LETTER * len(cell.text.strip("*")) for cell in self.cells]
        return max(*words, *cells, LEAST) + PADDING


def layout(frame: pd.DataFrame) -> Layout:
    """Lay out a table of strings."""
    found = [INTERVAL.search(name) for name in frame.columns if "±" in name]
    intervals = {match[1] if match else "" for match in found}
    interval = intervals.pop() if len(intervals) == 1 else ""
    if interval:
        frame = frame.rename(columns=lambda name: INTERVAL.sub(" ±", name))
    columns, keys = _columns(frame), _keys(frame)
    named = columns[:keys]
    parts = _parts(_without_dashes(columns[keys:]), COLUMN - sum(c.width for c in named))
    return Layout([_band(named, part) for part in parts], interval)


def _band(named: list[_Column], part: list[_Column]) -> Band:
    """A band, without rows that are empty in these columns."""
    rows = zip(*(column.cells for column in part), strict=True)
    told = [any(cell.text not in ("", NONE) or cell.paper for cell in row) for row in rows]
    cells: list[list[Cell | None]] = []
    merging = True  # until the first column of numbers
    for column in named + part:
        left = [cell for cell, any_ in zip(column.cells, told, strict=True) if any_]
        merging = merging and column.heading.words
        cells.append(_merged(left) if merging else [*left])
    headings = [column.heading for column in named + part]
    return Band(headings, [list(row) for row in zip(*cells, strict=True)])


def _merged(cells: list[Cell]) -> list[Cell | None]:
    """Merge runs of equal cells into one, followed by None for each other row."""
    merged: list[Cell | None] = []
    for cell, repeated in groupby(cells):
        rows = len(list(repeated))
        merged += [replace(cell, rows=rows), *[None] * (rows - 1)]
    return merged


def _keys(frame: pd.DataFrame) -> int:
    """The number of leading columns that identify a row."""
    for count in range(1, frame.shape[1]):
        if not frame.iloc[:, :count].duplicated().any():
            return count
    return 1


def _columns(frame: pd.DataFrame) -> list[_Column]:
    """The columns; a column of the paper is joined to the one before it."""
    columns: list[_Column] = []
    for name, values in frame.items():
        paper = PAPER.search(name)
        if paper and columns and not columns[-1].heading.paper:
            last = columns.pop()
            pairs = zip(last.cells, values.replace(NONE, ""), strict=True)
            cells = [replace(cell, paper=text) for cell, text in pairs]
            columns.append(_Column(replace(last.heading, paper=paper[1]), cells))
        else:
            words = is_text(values)
            heading = Cell(name.replace(" ±", "\u00a0±"), words=words)
            columns.append(_Column(heading, [Cell(value, words=words) for value in values]))
    return columns


def _without_dashes(columns: list[_Column]) -> list[_Column]:
    """Remove our dashes above the paper's values in rows that only the paper has."""
    rows = list(zip(*(column.cells for column in columns), strict=True))
    for i, row in enumerate(rows):
        if all(cell.text == NONE for cell in row):
            rows[i] = tuple(replace(cell, text="") if cell.paper else cell for cell in row)
    cells = zip(*rows, strict=True) if rows else ([] for _ in columns)
    return [_Column(c.heading, list(of)) for c, of in zip(columns, cells, strict=True)]


def _parts(columns: list[_Column], room: float) -> list[list[_Column]]:
    """Split the columns into as few parts as fit, of about the same width."""
    fewest = len(_filled(columns, room))
    widths = range(int(sum(c.width for c in columns) / fewest), int(room), 5)
    each = next((w for w in widths if len(_filled(columns, w)) == fewest), room)
    return _filled(columns, each)


def _filled(columns: list[_Column], room: float) -> list[list[_Column]]:
    parts: list[list[_Column]] = [[]]
    for column in columns:
        if parts[-1] and sum(c.width for c in parts[-1]) + column.width > room:
            parts.append([])
        parts[-1].append(column)
    return parts
