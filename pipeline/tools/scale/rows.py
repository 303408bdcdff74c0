"""The file of rows: a row for each measured cell, appended as soon as it is measured."""

import csv
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_file

# The columns that name a cell; metrics follow.
CELL = (
    "network",
    "tokens",
    "views",
    "label_smoothing",
    "seed",
    "steps",
    "decode_schedule",
    "iterations",
    "choice_temperature",
    "samples",
)
RUN = "run"  # the column that tells what a cell depends on besides, by a hash


@contextmanager
def rows_of(path: Path) -> Iterator["Rows"]:
    """The rows of a file while the block adds to them, which one process at a time does.

    Raises:
        UserError: it cannot be written, another process adds to the file, or as `Rows`.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise UserError(f"{path} is no file; name another")
    with ExitStack() as held:
        try:
            handle = held.enter_context(open(path, "ab"))
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process adds to {path}; name another file") from error
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror}); name another file"
            ) from error
        yield Rows(path)


class Rows:
    """A CSV file that a run adds to, and that a later run goes on from."""

    def __init__(self, path: Path):
        """
        Raises:
            UserError: the file holds something else.
        """
        self.path = path
        try:
            text = read_file(path).decode("utf-8")
            whole = text[: text.rfind("\n") + 1]
            lines = csv.DictReader(whole.splitlines())
            self.columns = list(lines.fieldnames or ())
            if not (self._is_begun(text) if whole == "" else {*CELL, RUN} <= set(self.columns)):
                raise ValueError("other columns")
            self._runs = {self._identity(row): row[RUN] for row in lines}
        except FileNotFoundError:
            text = whole = ""
            self.columns, self._runs = [], {}
        except (ValueError, csv.Error) as error:
            raise UserError(f"{path} holds no rows of `scale`; name another file") from error
        if whole != text:
            print(f"{path}: its last line has no end, as after a kill, and is removed")
            os.truncate(path, len(whole.encode()))

    @staticmethod
    def _is_begun(text: str) -> bool:
        """Whether a file without a whole line is one whose first a kill cut short."""
        header = ",".join(CELL)
        cut = header.startswith(text) and ("," in text or not text)
        return cut or (text.startswith(f"{header},") and "\r" not in text)

    def require(self, columns: list[str]) -> None:
        """Refuse a file whose rows have other columns, in whatever order, before anything is
        trained."""
        if not self.columns:
            return
        if missing := [name for name in columns if name not in self.columns]:
            raise UserError(
                f"{self.path} has no {missing[0]}: its cells were measured with another "
                f"evaluation.extractor, or the column was removed; name another file"
            )
        if unknown := [name for name in self.columns if name not in columns]:
            raise UserError(
                f"{self.path} has a column '{unknown[0]}', which `scale` does not measure; remove "
                f"it, or name another file"
            )

    def __contains__(self, cell: dict[str, Any]) -> bool:
        """Whether the cell is measured.

        Raises:
            UserError: it is, of a network that was trained or measured otherwise.
        """
        known = self._runs.get(self._identity(cell))
        if known not in (None, cell[RUN]):
            raise UserError(
                f"{self.path} holds the cell {'/'.join(self._identity(cell))}, trained or measured "
                f"otherwise (data, params or code were others); name another file"
            )
        return known is not None

    def append(self, row: dict[str, Any]) -> None:
        """Write the row at the file's end, in one piece."""
        if not self.columns:
            self.columns = list(row)
            self._write(self.columns)
        self._write([_text(row[name]) for name in self.columns])
        self._runs[self._identity(row)] = row[RUN]

    def _write(self, values: list[str]) -> None:
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(",".join(values) + "\n")
            handle.flush()
            os.fsync(handle.fileno())

    @staticmethod
    def _identity(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(_text(row[name]) for name in CELL)


def _text(value: Any) -> str:
    """A value as the file has it: floats with 10 significant digits, nothing for None."""
    if value is None:
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)
