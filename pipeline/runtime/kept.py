"""Measured rows that run directories keep, looked at before a stage goes on with them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.runtime.bounds import bounds_of
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json

Row = dict[str, Any]


def kept_row(
    path: Path,
    part: str | None = None,
    *,
    own: Mapping[str, Any] | None = None,
    needed: Iterable[str] = (),
    nullable: Iterable[str] = (),
    absent: Iterable[str] = (),
) -> Row:
    """A row from its file.

    Args:
        part: its key in the file; None where the file holds nothing else.
        own: what the row says of what it was measured of. All else in it are numbers, within the
            bounds of their columns.
        needed: those that are there in any case; another is None where it was not measurable.
        nullable: those that may be None, and are there nevertheless.
        absent: what the stage says itself, and the row does not.

    Raises:
        UserError: the file is missing, or holds another row.
    """
    row = read_json(path) if part is None else read_json(path, part)[part]
    if not _is_row(row, own or {}, needed, nullable) or not row.keys().isdisjoint(absent):
        raise _damaged(path, part or "row", own or {})
    return row


def kept_rows(
    path: Path,
    owns: Sequence[Mapping[str, Any]],
    needed: Iterable[str],
    nullable: Iterable[str] = (),
) -> list[Row]:
    """The rows of a file, in order.

    Args:
        owns: of each row what it says of what it was measured of; else as in `kept_row`.

    Raises:
        UserError: the file is missing, or holds other rows.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or len(rows) != len(owns):
        raise UserError(f"{path} is damaged: it has no {len(owns)} rows; delete it, run again")
    for row, own in zip(rows, owns, strict=True):
        if not _is_row(row, own, needed, nullable):
            raise _damaged(path, "row", own)
    return rows


def _is_row(
    row: Any, own: Mapping[str, Any], needed: Iterable[str], nullable: Iterable[str]
) -> bool:
    return (
        isinstance(row, dict)
        and all(_same(row.get(key), value) for key, value in own.items())
        and all(row.get(key) is not None for key in needed)
        and row.keys() >= set(nullable)
        and all(
            key in own or value is None or bounds_of(key).hold(value) for key, value in row.items()
        )
    )


def _same(value: Any, expected: Any) -> bool:
    return type(value) is type(expected) and value == expected


def _damaged(path: Path, kind: str, own: Mapping[str, Any]) -> UserError:
    named = f" of {', '.join(map(str, own.values()))}" if own else ""
    return UserError(
        f"{path} is damaged: it has no {kind} of numbers that can be{named}; delete it, run again"
    )
