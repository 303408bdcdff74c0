"""Reading one result file, with an error of one line where it is missing or damaged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json, require_file
from pipeline.runtime.limits import LARGEST

Arrays = dict[str, np.ndarray]
# Keys, and a value, that are text; all others are numbers.
WORDS = {"images", "schedule", "decoding_schedule", "augmentation", "task", "method", "network"}
WORDS |= {"selection"}
TEXT = {"device"}


def read_rows(
    path: Path, keys: list[str], values: list[str], *, may_be_empty: bool = False
) -> pd.DataFrame:
    """Read a CSV, sorted by its keys, so that nothing depends on which trial ended first.

    Raises:
        UserError: the file is missing, unreadable, lacks a column, or has one that is damaged, or a
            row twice; or it has no rows, unless it may be empty.
    """
    rows = read_csv(path)
    for name in keys + values:
        if name not in rows.columns:
            raise UserError(f"{path} lacks the column {name}; delete it and run dvc repro")
    if rows.empty:
        if not may_be_empty:
            raise UserError(f"{path} has no rows; delete it and run dvc repro")
        return rows
    words = {name: name in WORDS for name in keys} | {name: name in TEXT for name in values}
    for name in rows.columns:
        if _damaged(rows[name], words.get(name)):
            raise UserError(f"{path} is damaged in column {name}; delete it and run dvc repro")
    if rows.duplicated(keys).any():
        raise UserError(f"{path} has a row twice; delete it and run dvc repro")
    return rows.sort_values(keys).reset_index(drop=True)


def _damaged(column: pd.Series, words: bool | None) -> bool:
    """Whether a column holds text and also numbers, or nothing; or numbers that nothing measures.

    Args:
        words: whether it is to hold text; None where that is not known.
    """
    if pd.api.types.is_numeric_dtype(column):
        return bool(words) or bool((column.abs() > LARGEST).any())
    try:
        texts = pd.to_numeric(column, errors="coerce").isna() & column.notna()
    except OverflowError:  # an integer of hundreds of digits
        return True
    return bool(texts.any() and not texts.all()) or words is False


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


def read_numbers(path: Path, names: list[str]) -> dict[str, float]:
    """Read a JSON file of metrics, which has to hold the named ones as numbers above 0.

    Raises:
        UserError: it is missing, not JSON, or damaged.
    """
    values = read_json(_existing(path), *names)
    for name in names:
        if not isinstance(values[name], int | float) or not 0 < values[name] <= LARGEST:
            raise UserError(f"{path} is damaged in {name}; delete it and run dvc repro")
    return values


def read_arrays(path: Path, axes: Mapping[str, int]) -> Arrays:
    """Read the named arrays of an .npz file.

    Args:
        axes: how many each has.

    Raises:
        UserError: the file is missing, unreadable, or lacks one of them, or one is empty or of
            another number of axes.
    """
    try:
        with np.load(_existing(path)) as file:
            arrays = {name: file[name] for name in axes}
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}; delete it and run dvc repro") from error
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise UserError(f"{path} is not a valid .npz file; delete it and run dvc repro") from error
    for name, array in arrays.items():
        if array.ndim != axes[name] or not array.size:
            raise UserError(f"{path} is damaged in {name}; delete it and run dvc repro")
    return arrays


def _existing(path: Path) -> Path:
    try:
        require_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run dvc repro first") from error
    return path
