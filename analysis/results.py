"""Reading the result files: all of them, before anything is written."""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from analysis.metrics import MODELS, find_extractor, find_second_extractor, metric_column
from pipeline.errors import UserError
from pipeline.runtime.files import read_json

KEYS = ["schedule", "iterations", "seed", "samples"]
MANIFOLD = ["precision", "recall", "density", "coverage"]
Arrays = dict[str, np.ndarray]


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
        """Every metric column: Table 3's first, then any that was added since."""
        known = self.table_metrics
        return known + [name for name in self.rows.columns if name not in KEYS + known]


@dataclass(frozen=True)
class Results:
    """What the stages left behind, read and checked; the files are described in the stages."""

    folder: Path
    sweep: Sweep
    evaluation: dict[str, dict[str, float]]  # a key of `MODELS` → metric → value
    extractor: str  # of FID, IS, KID, precision and recall
    second_extractor: str  # of Table 5's precision and recall
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


def read_results(folder: Path) -> Results:
    """Read every result file.

    Raises:
        UserError: one is missing or damaged, or lacks a column; one line that names it.
    """
    sweep = read_sweep(folder / "sweep/rows.csv")
    metrics_file = folder / "evaluation/metrics.json"
    evaluation = read_evaluation(metrics_file)
    names = list(evaluation["transformer"])
    extractor = find_extractor(names, metrics_file)
    scores = [f"{kind}_{extractor}" for kind in ("fid", "is")]
    manifold = [f"{kind}_{extractor}" for kind in MANIFOLD]
    sources = sorted((folder / "sources").glob("*.json"))
    return Results(
        folder=folder,
        sweep=sweep,
        evaluation=evaluation,
        extractor=extractor,
        second_extractor=find_second_extractor(names, extractor, metrics_file),
        cas=read_rows(
            folder / "cas/rows.csv",
            keys=["images", "augmentation", "seed"],
            values=["training_images", "top1", "top5"],
        ),
        temperature=read_rows(
            folder / "temperature/rows.csv",
            keys=["choice_temperature", "seed"],
            values=["samples", *scores, "class_accuracy"],
        ),
        editing=read_rows(
            folder / "editing/rows.csv",
            keys=["task", "method", "seed"],
            values=["images", *scores, "class_accuracy"],
        ),
        rejection=read_rows(
            folder / "rejection/rows.csv",
            keys=["network", "selection", "acceptance"],
            values=["candidates", "samples", *scores, *[f"{s}_std" for s in scores], *manifold]
            + ["class_accuracy"],
        ),
        reconstruction=read_rows(
            folder / "reconstruction/rows.csv",
            keys=["mask_ratio", "draw"],
            values=["images", "psnr", "psnr_std", "perceptual", "perceptual_std"],
        ),
        speed=read_rows(
            folder / "speed_timings.csv",
            keys=["method", "tokens", "batch_size"],
            values=["iterations", "seconds_per_image", "low", "high", "repeats", "parameters"]
            + ["threads", "device"],
        ),
        data=read_json(_existing(folder / "prepare/metrics.json")),
        tokenizer=read_json(_existing(folder / "tokenizer/metrics.json")),
        class_grid=read_arrays(
            folder / "evaluation/class_grid.npz",
            ["class_names", "transformer", "autoregressive", "real"],
        ),
        decoding=read_arrays(folder / "evaluation/decoding.npz", ["images", "masked"]),
        neighbours=read_arrays(
            folder / "evaluation/neighbours.npz", ["samples", "nearest", "distance"]
        ),
        edits=read_arrays(
            folder / "editing/pictures.npz",
            ["inpainting", "class_edit", "class_edit_labels", "outpainting", "panorama"],
        ),
        rebuilt=read_arrays(
            folder / "reconstruction/pictures.npz",
            ["originals", "inputs", "samples", "medians", "mask_ratios"],
        ),
        sources={path.stem: read_json(path) for path in sources},
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
    return metrics


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
