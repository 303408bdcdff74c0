"""Reading the result files, and naming the metrics in them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from pipeline.errors import UserError
from pipeline.runtime.files import read_json

# Metrics whose value depends on the network that extracts the features.
FEATURE_METRICS = {"fid": "FID", "is": "IS", "precision": "precision", "recall": "recall"}
OTHER_METRICS = {
    "nll": "NLL",
    "class_accuracy": "class accuracy",
    "cas_top1": "CAS top-1",
    "cas_top5": "CAS top-5",
    "cas_real_top1": "CAS top-1 of real data",
    "cas_real_top5": "CAS top-5 of real data",
}
KEYS = ["schedule", "iterations", "seed", "samples"]


@dataclass(frozen=True)
class Sweep:
    """One row per (schedule, iterations, seed), and the extractor behind FID and IS."""

    rows: pd.DataFrame
    extractor: str

    def column(self, kind: str) -> str:
        """The column of a kind of metric: "fid" is `fid_classifier`, "nll" is `nll`."""
        return f"{kind}_{self.extractor}" if kind in FEATURE_METRICS else kind

    @property
    def table_metrics(self) -> list[str]:
        """The columns of Table 3, in its order."""
        kinds = ["fid", "is", "nll", "precision", "recall", "class_accuracy"]
        return [self.column(kind) for kind in kinds]

    @property
    def metrics(self) -> list[str]:
        """Every metric column: Table 3's first, then any that was added since."""
        known = self.table_metrics
        return known + [name for name in self.rows.columns if name not in KEYS + known]


def read_sweep(path: Path) -> Sweep:
    """Read the sweep's rows, in an order that does not depend on which trial ended first.

    Raises:
        UserError: the file is missing, unreadable, empty, or lacks a column or a value.
    """
    try:
        rows = pd.read_csv(_existing(path), dtype={"schedule": str})
    except ValueError as error:
        raise UserError(f"{path} is not valid CSV; delete it and run dvc repro") from error
    sweep = Sweep(rows, find_extractor(rows.columns, path))
    lacking = [name for name in KEYS + sweep.table_metrics if name not in rows.columns]
    if lacking:
        raise UserError(f"{path} lacks the column {lacking[0]}; delete it and run dvc repro")
    if rows.empty:
        raise UserError(f"{path} has no rows; delete it and run dvc repro")
    ranked = [sweep.column(kind) for kind in ("fid", "is", "nll")]
    if not np.isfinite(rows[ranked].to_numpy(dtype=float)).all():
        raise UserError(f"{path} has a cell without a finite FID, IS or NLL; see the sweep's log")
    return Sweep(rows.sort_values(["schedule", "iterations", "seed"]), sweep.extractor)


def read_metrics(path: Path) -> dict[str, float]:
    return read_json(_existing(path))


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Read the named arrays of an .npz file.

    Raises:
        UserError: the file is missing, unreadable, or lacks one of them.
    """
    try:
        with np.load(_existing(path)) as file:
            return [file[name] for name in names]
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}; delete it and run dvc repro") from error
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise UserError(f"{path} is not a valid .npz file; delete it and run dvc repro") from error


def find_extractor(names: Iterable[str], path: Path) -> str:
    """The feature extractor that FID was measured with, from the name `fid_<extractor>`.

    Raises:
        UserError: no such name, so that FID and IS could not be labelled.
    """
    for name in names:
        if match := re.fullmatch(r"fid_([^_]+)", name):
            return match[1]
    raise UserError(f"{path} has no fid_<extractor>; delete it and run dvc repro")


def metric_kind(name: str, extractor: str) -> str:
    """`fid_classifier` is of kind "fid"; other names, `fid_classifier_real` too, are their own."""
    kind = name.removesuffix(f"_{extractor}")
    return kind if kind in FEATURE_METRICS else name


def metric_label(name: str, extractor: str) -> str:
    """What readers see. FID and IS always carry their extractor: "FID (classifier)"."""
    kind, _, rest = name.partition("_")
    if kind in FEATURE_METRICS and rest.split("_")[0] == extractor:
        variant = rest[len(extractor) :].replace("_", " ").strip()
        return f"{FEATURE_METRICS[kind]} ({extractor})" + (f", {variant}" if variant else "")
    return OTHER_METRICS.get(name, name.replace("_", " "))


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path} is missing; run dvc repro first")
    return path
