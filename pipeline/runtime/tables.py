"""Reads result files. A missing or damaged file raises an error with a message of one line."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import as_written, read_file, read_json

if TYPE_CHECKING:
    import pandas as pd

MISSING = "run `dvc repro` to make it"
DAMAGED = "delete the file and run `dvc repro`"


def read_rows(path: Path, keys: list[str], values: list[str]) -> "pd.DataFrame":
    """Read a CSV file that has the columns `keys` and `values`, and sort the rows by `keys`. Empty
    cells become NaN. Raises a `UserError` if the file is missing or damaged."""
    import pandas as pd

    try:
        content = io.BytesIO(read_file(path))
        # By default, pandas would also read a word such as "none" as NaN.
        rows = pd.read_csv(content, keep_default_na=False, na_values=["", "nan"])
    except FileNotFoundError as error:
        raise UserError(str(path), "missing", MISSING) from error
    except ValueError as error:
        raise UserError(str(path), f"not valid CSV ({error})", DAMAGED) from error
    if missing := [name for name in keys + values if name not in rows.columns]:
        raise UserError(str(path), f"has no column {missing[0]}", DAMAGED)
    return rows.sort_values(keys).reset_index(drop=True)


def read_metrics(path: Path, *names: str) -> dict[str, float]:
    """Read metrics from a JSON file. Raises a `UserError` if the file is missing or damaged."""
    return with_nan(read_json(path, *names, way_out=DAMAGED))


def with_nan(metrics: dict[str, float | None]) -> dict[str, float]:
    """Replace None, which marks a metric that was not measured, with NaN."""
    return {name: float("nan") if v is None else v for name, v in metrics.items()}


def has_param(column: "pd.Series", value: float) -> "pd.Series":
    """Whether each value of a column equals `value`, with both rounded to 10 significant digits."""
    return column.map(as_written) == as_written(value)
