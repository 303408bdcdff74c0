"""How the report lays out a table so that it fits its column: the paper's value stands under ours,
cells that repeat are one, and what is still too wide goes on in a band below."""

import re
from dataclasses import dataclass, replace

import pandas as pd

from analysis.exhibits.formatting import NONE, is_text

COLUMN = 985  # CSS pixels that the report's column has in a window of 1280
LETTER, BOLD, PADDING, LEAST = 7.2, 8.2, 20, 50  # of a cell
INTERVAL = re.compile(r", (± 95% interval over .+)$")
PAPER = re.compile(r" \((paper.*)\)$")


@dataclass(frozen=True)
class Heading:
    """The heading of a column, and of the paper's values in it; empty where it has none."""

    text: str
    paper: str
    words: bool


@dataclass(frozen=True)
class Cell:
    """Our value, and the paper's under it; `rows` are those that it stands for, `words` says that
    its column has no numbers."""

    text: str
    paper: str
    words: bool
    rows: int = 1

    @property
    def told(self) -> bool:
        return self.text not in ("", NONE) or bool(self.paper)


@dataclass(frozen=True)
class Band:
    """Some columns of a table, after those that name a row; a row lacks the cells that one above
    stands for."""

    headings: list[Heading]
    rows: list[list[Cell | None]]


@dataclass(frozen=True)
class Layout:
    """The bands of a table, and what all of their "±" are."""

    bands: list[Band]
    interval: str


@dataclass(frozen=True)
class _Column:
    heading: Heading
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
    columns[keys:] = _without_dashes(columns[keys:])
    named = columns[:keys]
    parts = _parts(columns[keys:], COLUMN - sum(column.width for column in named))
    return Layout([_band(named, part) for part in parts], interval)


def _band(named: list[_Column], part: list[_Column]) -> Band:
    """Without rows that have nothing in these columns."""
    told = [any(cell.told for cell in row) for row in zip(*(c.cells for c in part), strict=True)]
    columns = [
        _Column(c.heading, [cell for cell, any_ in zip(c.cells, told, strict=True) if any_])
        for c in named + part
    ]
    words = [*(column.heading.words for column in columns), False].index(False)
    columns = [_merged(c) if i < words else c for i, c in enumerate(columns)]
    rows = zip(*(_spanned(column) for column in columns), strict=True)
    return Band([column.heading for column in columns], [list(row) for row in rows])


def _keys(frame: pd.DataFrame) -> int:
    """How many columns it takes to name a row."""
    for count in range(1, frame.shape[1]):
        if not frame.iloc[:, :count].duplicated().any():
            return count
    return 1


def _columns(frame: pd.DataFrame) -> list[_Column]:
    """The columns, the paper's joined to that before it."""
    columns: list[_Column] = []
    for name in frame.columns:
        values = list(frame[name])
        paper = PAPER.search(name)
        if paper and columns and not columns[-1].heading.paper:
            last = columns.pop()
            texts = ["" if value == NONE else value for value in values]
            pairs = zip(last.cells, texts, strict=True)
            cells = [replace(cell, paper=text) for cell, text in pairs]
            heading = Heading(last.heading.text, paper[1], last.heading.words)
            columns.append(_Column(heading, cells))
        else:
            heading = Heading(name.replace(" ±", "\u00a0±"), "", is_text(frame[name]))
            columns.append(_Column(heading, [Cell(value, "", heading.words) for value in values]))
    return columns


def _without_dashes(columns: list[_Column]) -> list[_Column]:
    """Our dashes taken from above the paper's values, in rows that only the paper has."""
    rows = zip(*(column.cells for column in columns), strict=True)
    theirs = [all(cell.text == NONE for cell in row) for row in rows]
    return [
        _Column(
            column.heading,
            [
                replace(cell, text="") if only and cell.paper else cell
                for cell, only in zip(column.cells, theirs, strict=True)
            ],
        )
        for column in columns
    ]


def _merged(column: _Column) -> _Column:
    """A column in which runs of the same are one cell, by its `rows`."""
    cells: list[Cell] = []
    for cell in column.cells:
        start = next((i for i in reversed(range(len(cells))) if cells[i].rows), None)
        if start is not None and replace(cells[start], rows=1) == cell:
            cells[start] = replace(cell, rows=cells[start].rows + 1)
            cells.append(replace(cell, rows=0))
        else:
            cells.append(cell)
    return _Column(column.heading, cells)


def _spanned(column: _Column) -> list[Cell | None]:
    """The cells, None where one above stands for it."""
    return [cell if cell.rows else None for cell in column.cells]


def _parts(columns: list[_Column], room: float) -> list[list[_Column]]:
    """The columns in as few parts as fit, of about the same width."""
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
