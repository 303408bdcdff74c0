"""Reading one result file, with an error of one line where it is missing or damaged."""

import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runtime.bounds import bounds_of, known_bounds
from pipeline.runtime.dag import DVC_FILE, HERE, project_around, read_stages, stage_outputs
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import as_written, distinct, read_file, require_file
from pipeline.runtime.limits import RESULT_BYTES, RESULT_COLUMNS, TEXT

if TYPE_CHECKING:
    import pandas as pd

# Keys, and a value, that are text; all others are numbers.
WORDS = {"images", "schedule", "decoding_schedule", "augmentation", "task", "method", "network"}
WORDS |= {"selection"}
WORD_VALUES = {"device"}


class Damaged(UserError):
    """A result file is not what its stage wrote."""

    def __init__(self, path: Path, what: str):
        super().__init__(f"{path} {what}; {_way_out(path)}")


def _way_out(path: Path) -> str:
    """How a user gets the file as it was."""
    try:
        root = project_around(path) or HERE  # results may lie apart from any
        stage = _maker(path, root) if (root / DVC_FILE).exists() else ""
    except UserError:  # a dvc.yaml of others
        stage = ""
    return f"delete it and run `dvc repro{stage and ' '}{stage}`"


def _maker(path: Path, root: Path) -> str:
    """The stage of a project that makes a file; "" if none does."""
    ways = [path.parts[start:] for start in range(len(path.parts))]
    for stage in read_stages(root):
        for output in stage_outputs(stage, root):
            if any(way[: len(output.parts)] == output.parts for way in ways):
                return stage
    return ""


def has_param(column: "pd.Series", value: float) -> "pd.Series":
    """Which rows of a file of results have that value of a param."""
    return column.map(as_written) == as_written(value)


@contextmanager
def reading(path: Path, most: int | None = None) -> Iterator[None]:
    """Read and check one file in the block, and compute nothing else: whatever a damaged file makes
    a parser raise is a line.

    Args:
        most: bytes that it may have.

    Raises:
        UserError: the file is missing, no file at all, larger, or damaged.
    """
    try:
        if path.exists() and not path.is_file():  # a FIFO would hang, a device never end
            raise Damaged(path, "is a folder, pipe or device and no file")
        require_file(path)
        if most is not None and path.stat().st_size > most:
            raise Damaged(path, f"has {path.stat().st_size:,} bytes, more than {most:,}")
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run dvc repro first") from error
    except Exception as error:  # parsers of damaged bytes raise nearly anything
        raise Damaged(path, f"is damaged ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(": ")


def read_csv(path: Path) -> "pd.DataFrame":
    """Read a CSV as it is.

    Raises:
        UserError: the file is missing or no CSV.
    """
    import pandas as pd

    with reading(path, RESULT_BYTES):
        content = read_file(path)
        if re.search(rb"(?:\A|[\r\n])(?:[^,\r\n]*,){%d}" % RESULT_COLUMNS, content):
            raise Damaged(path, f"has a line of more than {RESULT_COLUMNS:,} columns")
        try:
            # Empty cells are missing numbers; the selection "none" and the like are words. A column
            # is looked at as a whole, or pandas warns of a damaged one.
            missing = {"keep_default_na": False, "na_values": ["", "nan"]}
            rows = pd.read_csv(io.BytesIO(content), low_memory=False, **missing)
        except ValueError as error:
            raise Damaged(path, "is not valid CSV") from error
        if not isinstance(rows.index, pd.RangeIndex):
            raise Damaged(path, "has rows of more cells than its first line")
    return rows


def read_rows(
    path: Path,
    keys: list[str],
    values: list[str],
    *,
    may_be_empty: bool = False,
    unseeded: Sequence[str] = (),
) -> "pd.DataFrame":
    """Read a CSV, sorted by its keys, so that nothing depends on which trial ended first. A column
    of text that is not asked for is somebody's notes, and left out.

    Args:
        unseeded: words of its keys whose rows have no other keys: of images that no network drew.

    Raises:
        UserError: the file is missing, unreadable, lacks a column, or has one that is damaged or
            out of its bounds, or a row twice; or it has no rows, unless it may be empty.
    """
    rows = read_csv(path)
    for name in keys + values:
        if name not in rows.columns:
            raise Damaged(path, f"lacks the column {name}")
    if rows.empty:
        if not may_be_empty:
            raise Damaged(path, "has no rows")
        return rows
    words = {name: name in WORDS for name in keys}
    words |= {name: name in WORD_VALUES for name in values}
    with reading(path):
        for name in rows.columns:
            others = False if known_bounds(name) else None
            if wrong := _wrong(rows[name], words.get(name, others)):
                raise Damaged(path, f"is damaged in column {name}: {wrong}")
        _require_filled(path, rows, keys, values, unseeded)
        if {"low", "high"} <= set(rows.columns) and (rows["low"] > rows["high"]).any():
            raise Damaged(path, "is damaged in column low: it is above high")
        if rows.duplicated(keys).any():
            raise Damaged(path, "has a row twice")
    text = rows.columns.difference(rows.select_dtypes("number").columns)
    rows = rows.drop(columns=text.difference(keys + values))
    return rows.sort_values(keys).reset_index(drop=True)


def _wrong(column: "pd.Series", words: bool | None) -> str:
    """What is wrong with a column; "" if nothing is.

    Args:
        words: whether it is to hold text; None where that is not known.
    """
    import pandas as pd

    if pd.api.types.is_bool_dtype(column):
        return "true and false are no numbers"
    if pd.api.types.is_numeric_dtype(column):
        bounds = bounds_of(str(column.name))
        out = next((v for v in column.dropna().tolist() if not bounds.hold(v)), None)
        return "it has no text" if words else f"it cannot be {out}" if out is not None else ""
    try:
        numbers = pd.to_numeric(column, errors="coerce").notna()
    except OverflowError:  # an integer of hundreds of digits
        return "it has a number without end"
    texts = column.notna() & ~numbers
    if words is False and texts.any():
        return "it holds text"
    if words is False or (texts.any() and numbers.any()):
        return "it holds text and numbers"
    return "it has a text without end" if (column.astype(str).str.len() > TEXT).any() else ""


def _require_filled(
    path: Path,
    rows: "pd.DataFrame",
    keys: list[str],
    values: list[str],
    unseeded: Sequence[str],
) -> None:
    """Refuse empty cells where the stage always leaves something."""
    drawn = ~rows[[name for name in keys if name in WORDS]].isin(unseeded).any(axis=1)
    for name in keys:
        if rows.loc[drawn, name].isna().any():
            raise Damaged(path, f"is damaged in column {name}: a cell is empty")
    for name in values:
        if bounds_of(name).always and rows[name].isna().any():
            raise Damaged(path, f"is damaged in column {name}: a cell is empty")


def require_cells(path: Path, rows: "pd.DataFrame", axes: Mapping[str, Sequence[Any]]) -> None:
    """Refuse a table that was cut: every combination of the values must have a row.

    Args:
        axes: by column, the values that the stage's params ask for.

    Raises:
        UserError: one is missing, which the line names.
    """
    whole = {name: all(map(_is_whole, values)) for name, values in axes.items()}
    found = set(zip(*(_as_texts(rows[name], whole[name]) for name in axes), strict=True))
    # As many as there are rows suffice to find a gap: the values may be too many to go through.
    wanted = itertools.product(*(_as_texts(v, whole[name]) for name, v in axes.items()))
    for cell in itertools.islice(wanted, len(rows) + 1):
        if cell not in found:
            named = ", ".join(f"{k} {v}" for k, v in zip(axes, cell, strict=True))
            raise Damaged(path, f"has no row of {named}")


def _is_whole(value: Any) -> bool:
    return not isinstance(value, str) and float(value).is_integer()


def _as_texts(values: Iterable[Any], whole: bool) -> list[str]:
    """Values as a CSV repeats them: whole numbers, as seeds are, with all their digits."""
    digits = 17 if whole else 9
    return [v if isinstance(v, str) else f"{float(v):.{digits}g}" for v in values]


def read_values(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is missing, not JSON, or has a key twice.
    """
    with reading(path, RESULT_BYTES):
        try:
            return json.loads(read_file(path).decode("utf-8"), object_pairs_hook=distinct)
        except (ValueError, RecursionError) as error:
            what = "damaged" if type(error) is ValueError else "not valid JSON"  # a key twice
            raise Damaged(path, f"is {what} ({error})") from error


def read_numbers(path: Path, names: Iterable[str]) -> dict[str, float]:
    """Read a JSON file of metrics, which has to hold the named ones as numbers above 0.

    Raises:
        UserError: it is missing, not JSON, or damaged.
    """
    values = metrics_in(path, read_values(path))
    for name in names:
        if not values.get(name, 0) > 0:
            raise Damaged(path, f"is damaged in {name}: it has no such number above 0")
    return values


def metrics_in(path: Path, values: Any, of: str = "") -> dict[str, float]:
    """The numbers of a mapping in a JSON file, NaN for null, which was not measured.

    Args:
        of: what the mapping is of, in the error.

    Raises:
        UserError: it is no mapping, or a value is no number or out of its bounds.
    """
    if not isinstance(values, dict):
        raise Damaged(path, f"has no metrics{of}")
    for name, value in values.items():
        if value is not None and not bounds_of(name).hold(value):
            raise Damaged(path, f"is damaged in {name}{of}: it cannot be {str(value)[:50]}")
    return {k: float("nan") if v is None else v for k, v in values.items()}
