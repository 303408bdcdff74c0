"""The curves of the mask schedules, which name runs, must be those of the code that runs."""

import math
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.paths import CURVES
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_file
from pipeline.schedules import curve_csv


def check_curves(schedules: Iterable[str], params: Params) -> None:
    """Refuse curves of other code: what is started by hand, without `dvc repro`, may find some, and
    what it made would be taken for theirs.

    Args:
        schedules: names of those that are drawn, trained or decoded with.

    Raises:
        UserError: a curve is missing, or not what the code says.
    """
    for name in schedules:
        path = CURVES / f"{name}.csv"
        if not _is_curve(_content(path), curve_csv(name, params.num_tokens)):
            raise UserError(f"{path} is not what the code says; run `dvc repro schedules` first")


def _is_curve(content: bytes, curve: str) -> bool:
    """Whether a file holds that curve, but for the last bits of its numbers, which a processor of
    another kind rounds otherwise."""
    if content == curve.encode():
        return True
    try:
        found, own = (_numbers(text) for text in (content.decode(), curve))
    except ValueError:
        return False
    return found.keys() == own.keys() and all(
        len(found[name]) == len(own[name]) and all(map(_close, found[name], own[name]))
        for name in own
    )


_close = partial(math.isclose, rel_tol=1e-12, abs_tol=1e-15)


def _numbers(text: str) -> dict[str, tuple[float, ...]]:
    """The columns of a CSV of numbers."""
    header, *lines = text.splitlines() or [""]
    rows = [tuple(map(float, line.split(","))) for line in lines]
    return dict(zip(header.split(","), zip(*rows, strict=True), strict=True))


def _content(path: Path) -> bytes:
    """Of a file; none where it is missing or no file."""
    with suppress(FileNotFoundError, UserError):
        return read_file(path)
    return b""
