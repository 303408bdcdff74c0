"""The sweep of mask schedules: its rows, and γ of each schedule as numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.exhibits.inputs.metrics import find_extractor, metric_column
from pipeline.runtime.errors import UserError
from pipeline.runtime.tables import MISSING, read_rows

KEYS = ["schedule", "iterations", "seed", "samples"]
CURVE_TOKENS = 256  # N of the curves that are drawn: the paper's at 256×256


@dataclass(frozen=True)
class Sweep:
    """One row per (schedule, iterations, seed), and the extractor behind FID and IS."""

    rows: pd.DataFrame
    extractor: str

    def column(self, kind: str) -> str:
        return metric_column(kind, self.extractor)

    @property
    def table_metrics(self) -> list[str]:
        """The columns of Table 3, in its order."""
        kinds = ["fid", "is", "kid", "nll", "precision", "recall", "class_accuracy"]
        return [self.column(kind) for kind in kinds]

    @property
    def metrics(self) -> list[str]:
        """Every metric column: Table 3's first, then any that was added since; the seeds are the
        spread here, and not what a single set has."""
        known = self.table_metrics
        others = (name for name in self.rows.columns if name not in KEYS + known)
        return known + [name for name in others if not name.endswith("_std")]


def read_sweep(path: Path) -> Sweep:
    """Read the sweep's rows.

    Raises:
        UserError: the file is missing, no CSV, or lacks a column or a value.
    """
    extractor = find_extractor(read_rows(path, KEYS, []).columns, path)
    wanted = Sweep(pd.DataFrame(), extractor)
    rows = read_rows(path, keys=KEYS[:-1], values=[KEYS[-1], *wanted.table_metrics])
    ranked = rows[[wanted.column(kind) for kind in ("fid", "is", "nll")]]
    if not np.isfinite(ranked.to_numpy(dtype=float)).all():
        raise UserError(str(path), "a cell without a finite FID, IS or NLL", "see the sweep's log")
    return Sweep(rows, extractor)


def read_curves(folder: Path, schedules: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Read γ(r) of each schedule at N = `CURVE_TOKENS`.

    Args:
        folder: has `<schedule>.csv`, as the stage `schedules` leaves it.

    Returns:
        By schedule, columns r and gamma, sorted by r; without a schedule that was swept once and
        removed from the code since.

    Raises:
        UserError: the folder is missing, or a curve cannot be read.
    """
    if not folder.is_dir():
        raise UserError(str(folder), "missing", MISSING)
    gamma = f"gamma_{CURVE_TOKENS}"
    paths = {name: folder / f"{name}.csv" for name in schedules}
    return {
        name: read_rows(path, ["r"], [gamma])[["r", gamma]].rename(columns={gamma: "gamma"})
        for name, path in paths.items()
        if path.exists()
    }
