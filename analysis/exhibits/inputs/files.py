"""Reading one result file, with an error of one line where it is missing or damaged."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json

Arrays = dict[str, np.ndarray]


def read_rows(path: Path, keys: list[str], values: list[str]) -> pd.DataFrame:
    """Read a CSV, sorted by its keys, so that nothing depends on which trial ended first.

    Raises:
        UserError: the file is missing, unreadable, empty, or lacks a column.
    """
    rows = read_csv(path)
    for name in keys + values:
        if name not in rows.columns:
            raise UserError(f"{path} lacks the column {name}; delete it and run dvc repro")
    if rows.empty:
        raise UserError(f"{path} has no rows; delete it and run dvc repro")
    return rows.sort_values(keys).reset_index(drop=True)


def read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV as it is.

    Raises:
        UserError: the file is missing or unreadable.
    """
    try:
        # Empty cells are missing numbers; the selection "none" and the like are words.
        return pd.read_csv(_existing(path), keep_default_na=False, na_values=["", "nan"])
    except ValueError as error:
        raise UserError(f"{path} is not valid CSV; delete it and run dvc repro") from error


def read_metrics(path: Path) -> Any:
    """Read a JSON file of metrics.

    Raises:
        UserError: it is missing or not JSON.
    """
    return read_json(_existing(path))


def read_arrays(path: Path, names: list[str]) -> Arrays:
    """Read the named arrays of an .npz file.

    Raises:
        UserError: the file is missing, unreadable, or lacks one of them.
    """
    try:
        with np.load(_existing(path)) as file:
            return {name: file[name] for name in names}
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}; delete it and run dvc repro") from error
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise UserError(f"{path} is not a valid .npz file; delete it and run dvc repro") from error


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path} is missing; run dvc repro first")
    return path
