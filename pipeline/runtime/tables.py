"""Reading result files, with an error of one line if one is missing or damaged."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import as_written, read_file, read_json

if TYPE_CHECKING:
    import pandas as pd

MISSING = "run `dvc repro` to make it"  # the way out if a file of the project is not there
DAMAGED = "delete it and run `dvc repro`"


def read_csv(path: Path) -> "pd.DataFrame":
    """Read a CSV as it is.

    Raises:
        UserError: the file is missing or no CSV.
    """
    import io

    import pandas as pd

    try:
        # Empty cells are missing numbers; the selection "none" and the like are words.
        return pd.read_csv(
            io.BytesIO(read_file(path)), keep_default_na=False, na_values=["", "nan"]
        )
    except FileNotFoundError as error:
        raise UserError(str(path), "missing", MISSING) from error
    except ValueError as error:
        raise UserError(str(path), f"no valid CSV ({error})", DAMAGED) from error


def read_rows(path: Path, keys: list[str], values: list[str]) -> "pd.DataFrame":
    """Read a CSV, sorted by its keys, so that nothing depends on which trial ended first.

    Raises:
        UserError: the file is missing, no CSV, or lacks one of the columns.
    """
    rows = read_csv(path)
    for name in keys + values:
        if name not in rows.columns:
            raise UserError(str(path), f"no column {name}", DAMAGED)
    return rows.sort_values(keys).reset_index(drop=True)


def read_metrics(path: Path, *names: str) -> dict[str, float]:
    """Read a JSON file of metrics; null, which was not measured, is NaN.

    Raises:
        UserError: the file is missing, not JSON, or lacks one of the named metrics.
    """
    return with_nan(read_json(path, *names, way_out=DAMAGED))


def with_nan(metrics: dict[str, float | None]) -> dict[str, float]:
    """Metrics with NaN for None."""
    return {name: float("nan") if v is None else v for name, v in metrics.items()}


def has_param(column: "pd.Series", value: float) -> "pd.Series":
    """Which rows of a result file have that value of a param."""
    return column.map(as_written) == as_written(value)
