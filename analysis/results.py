"""Reading the result files: all of them, before anything is written."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from analysis.metrics import MODELS, find_extractor, find_second_extractor, metric_column
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json

KEYS = ["schedule", "iterations", "seed", "samples"]
Arrays = dict[str, np.ndarray]

# Fields of `Results`, the files that they are read from, and what must be in them: the keys that
# name a row, and values, with {x} for the extractor; the names of arrays.
SCORES, DEVIATIONS = ["fid_{x}", "is_{x}"], ["fid_{x}_std", "is_{x}_std"]
MANIFOLD = ["precision_{x}", "recall_{x}", "density_{x}", "coverage_{x}"]
MACHINE = ["parameters", "threads", "device"]
TABLES: dict[str, tuple[str, list[str], list[str]]] = {
    "cas": (
        "cas/rows.csv",
        ["images", "augmentation", "seed"],
        ["training_images", "top1", "top5"],
    ),
    "temperature": (
        "temperature/rows.csv",
        ["choice_temperature", "seed"],
        ["samples", *SCORES, "class_accuracy"],
    ),
    "editing": (
        "editing/rows.csv",
        ["task", "method", "seed"],
        ["images", *SCORES, "class_accuracy"],
    ),
    "rejection": (
        "rejection/rows.csv",
        ["network", "selection", "acceptance"],
        ["candidates", "samples", *SCORES, *DEVIATIONS, *MANIFOLD, "class_accuracy"],
    ),
    "reconstruction": (
        "reconstruction/rows.csv",
        ["mask_ratio", "draw"],
        ["images", "psnr", "psnr_std", "perceptual", "perceptual_std"],
    ),
    "speed": (
        "speed_timings.csv",
        ["method", "tokens", "batch_size"],
        ["iterations", "seconds_per_image", "low", "high", "repeats", *MACHINE],
    ),
}
ARRAYS: dict[str, tuple[str, list[str]]] = {
    "class_grid": (
        "evaluation/class_grid.npz",
        ["class_names", "transformer", "autoregressive", "real"],
    ),
    "decoding": ("evaluation/decoding.npz", ["images", "masked"]),
    "neighbours": ("evaluation/neighbours.npz", ["samples", "nearest", "distance"]),
    "edits": (
        "editing/pictures.npz",
        ["inpainting", "class_edit", "class_edit_labels", "outpainting", "panorama"],
    ),
    "rebuilt": (
        "reconstruction/pictures.npz",
        ["originals", "inputs", "samples", "medians", "mask_ratios"],
    ),
}


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


@dataclass(frozen=True)
class Results:
    """What the stages left behind, read and checked; the files are described in the stages."""

    folder: Path
    sweep: Sweep
    evaluation: dict[str, dict[str, float]]  # a key of `MODELS` → metric → value
    extractor: str  # of FID, IS and KID
    second_extractor: str  # of precision and recall, beside the first
    cas: pd.DataFrame
    temperature: pd.DataFrame
    editing: pd.DataFrame
    rejection: pd.DataFrame
    reconstruction: pd.DataFrame
    speed: pd.DataFrame
    data: dict[str, float]
    tokenizer: dict[str, float]
    class_grid: Arrays
    decoding: Arrays
    neighbours: Arrays
    edits: Arrays
    rebuilt: Arrays
    sources: dict[str, dict]  # stage → run, commit, machine, …; empty where none was recorded

    def metric(self, kind: str) -> str:
        """The name of a metric of the main extractor in every file."""
        return metric_column(kind, self.extractor)

    @property
    def manifold_extractors(self) -> tuple[str, str]:
        """Those of precision and recall in Table 1 and in Table 5: as in the paper VGG and
        Inception where either was used, else the main one and the second."""
        pair = (self.extractor, self.second_extractor)
        as_printed = self.second_extractor == "vgg" or self.extractor == "inception"
        return pair[::-1] if as_printed else pair


def read_results(folder: Path) -> Results:
    """Read every result file.

    Raises:
        UserError: one is missing or damaged, or lacks a column; one line that names it.
    """
    sweep = read_sweep(folder / "sweep/rows.csv")
    metrics_file = folder / "evaluation/metrics.json"
    evaluation = read_evaluation(metrics_file)
    metrics = list(evaluation["transformer"])
    extractor = find_extractor(metrics, metrics_file)
    tables = {
        field: read_rows(folder / name, keys, [value.format(x=extractor) for value in values])
        for field, (name, keys, values) in TABLES.items()
    }
    arrays = {field: read_arrays(folder / name, names) for field, (name, names) in ARRAYS.items()}
    sources = sorted((folder / "sources").glob("*.json"))
    return Results(
        folder=folder,
        sweep=sweep,
        evaluation=evaluation,
        extractor=extractor,
        second_extractor=find_second_extractor(metrics, extractor, metrics_file),
        data=read_json(_existing(folder / "prepare/metrics.json")),
        tokenizer=read_json(_existing(folder / "tokenizer/metrics.json")),
        sources={path.stem: read_json(path) for path in sources},
        **tables,
        **arrays,
    )


def read_sweep(path: Path) -> Sweep:
    """Read the sweep's rows.

    Raises:
        UserError: the file is missing, unreadable, empty, or lacks a column or a value.
    """
    extractor = find_extractor(_read_csv(path).columns, path)
    wanted = Sweep(pd.DataFrame(), extractor)
    rows = read_rows(path, keys=KEYS[:-1], values=[KEYS[-1], *wanted.table_metrics])
    ranked = rows[[wanted.column(kind) for kind in ("fid", "is", "nll")]]
    if not np.isfinite(ranked.to_numpy(dtype=float)).all():
        raise UserError(f"{path} has a cell without a finite FID, IS or NLL; see the sweep's log")
    return Sweep(rows, extractor)


def read_rows(path: Path, keys: list[str], values: list[str]) -> pd.DataFrame:
    """Read a CSV, sorted by its keys, so that nothing depends on which trial ended first.

    Raises:
        UserError: the file is missing, unreadable, empty, or lacks a column.
    """
    rows = _read_csv(path)
    for name in keys + values:
        if name not in rows.columns:
            raise UserError(f"{path} lacks the column {name}; delete it and run dvc repro")
    if rows.empty:
        raise UserError(f"{path} has no rows; delete it and run dvc repro")
    return rows.sort_values(keys).reset_index(drop=True)


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        # Empty cells are missing numbers; the selection "none" and the like are words.
        return pd.read_csv(_existing(path), keep_default_na=False, na_values=["", "nan"])
    except ValueError as error:
        raise UserError(f"{path} is not valid CSV; delete it and run dvc repro") from error


def read_evaluation(path: Path) -> dict[str, dict[str, float]]:
    """Read the metrics of every set of images.

    Raises:
        UserError: the file is missing or damaged, or lacks a set.
    """
    metrics = read_json(_existing(path))
    for name in MODELS:
        if not isinstance(metrics, dict) or not isinstance(metrics.get(name), dict):
            raise UserError(f"{path} has no metrics of {name}; delete it and run dvc repro")
    missing = float("nan")  # what could not be measured is null in the file
    return {
        name: {k: missing if v is None else v for k, v in values.items()}
        for name, values in metrics.items()
    }


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
