"""Measured rows that run directories keep, looked at before a stage goes on with them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.runtime.bounds import are_numbers
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json


def kept_row(
    path: Path,
    part: str | None = None,
    *,
    own: Mapping[str, Any] | None = None,
    needed: Iterable[str] = (),
) -> dict[str, Any]:
    """A row from its file.

    Args:
        part: its key in the file; None where the file holds nothing else.
        own: what the row says of what it was measured of. All else in it are numbers.
        needed: those that are there in any case; another is None where it was not measurable.

    Raises:
        UserError: the file is missing, or holds another row.
    """
    row = read_json(path) if part is None else read_json(path, part)[part]
    own = own or {}
    if (
        not isinstance(row, dict)
        or any(row.get(key) != value for key, value in own.items())
        or any(row.get(key) is None for key in needed)
        or not are_numbers({key: value for key, value in row.items() if key not in own})
    ):
        named = f" of {', '.join(map(str, own.values()))}" if own else ""
        raise UserError(
            f"{path} is damaged: it has no {part or 'row'} of numbers{named}; delete it, run again"
        )
    return row
