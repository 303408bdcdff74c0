"""The curves of the mask schedules, which name runs, must be those of the code that runs."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.paths import CURVES
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_file
from pipeline.runtime.limits import RESULT_BYTES
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
        if _content(path) != curve_csv(name, params.num_tokens).encode():
            raise UserError(f"{path} is not what the code says; run `dvc repro schedules` first")


def _content(path: Path) -> bytes:
    """Of a file; none where it is missing, too large or no file."""
    with suppress(FileNotFoundError, UserError):
        return read_file(path, RESULT_BYTES)
    return b""
