"""Reads the result files, and names the metrics in them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config.params import Params
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json
from pipeline.runtime.provenance import Record
from pipeline.runtime.tables import DAMAGED, MISSING, has_param, read_metrics, read_rows, with_nan

# Metrics whose value depends on the network that extracts the features. A metric that is added here
# is shown in Tables 1 and 3, and in Table 4 if rejection measures the metric (docs/extend.md).
FEATURE_METRICS = {
    "fid": "FID",
    "fid_infinity": "FID∞",
    "is": "IS",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}
# Metrics that use the main extractor only; metrics based on neighbours use both extractors.
DISTRIBUTION = ("fid", "fid_infinity", "is", "kid")
OTHER_METRICS = {"nll": "NLL", "class_accuracy": "recognised", "psnr": "PSNR"}
LOWER_IS_BETTER = ("fid", "fid_infinity", "kid", "nll")  # beginnings of columns' names
SWEEP_METRICS = ["fid", "is", "kid", "nll", "precision", "recall", "class_accuracy"]  # of Table 3

# Measured sets of images, with the paper's names for the networks that made the images.
MODELS = {
    "transformer": "MaskGIT",
    "autoregressive": "VQGAN∗",
    "reconstruction": "reconstructions",
    "real": "real images",
}
NETWORKS = ("transformer", "autoregressive")  # the sets of images from trained networks
# Phrases for extractors in sentences; other extractors appear by name.
EXTRACTORS = {
    "classifier": "this data's own classifier",
    "random": "an untrained classifier",
    "inception": "Inception",
    "vgg": "VGG",
}
CURVE_TOKENS = 256  # N of the drawn curves: the tokens of the paper's 256×256 images

# The CSV file of each field of `Results`, and the columns that its rows are sorted by.
TABLES = {
    "rows": ("evaluation/rows.csv", ["images", "label_smoothing", "seed"]),
    "real": ("evaluation/real.csv", ["samples", "subset"]),
    "sweep": ("sweep/rows.csv", ["schedule", "iterations", "seed"]),
    "crossing": ("sweep/crossing.csv", ["schedule", "decoding_schedule", "seed"]),
    "designs": ("sweep/designs.csv", ["schedule", "iterations", "passes", "seed"]),
    "oracle": ("oracle/rows.csv", ["tokens", "sampler", "schedule", "iterations", "group"]),
    "cas": ("cas/rows.csv", ["images", "augmentation", "seed"]),
    "temperature": ("temperature/rows.csv", ["choice_temperature", "setting", "seed"]),
    "editing": ("editing/rows.csv", ["task", "method", "seed"]),
    "rejection": ("rejection/rows.csv", ["network", "selection", "acceptance", "seed"]),
    "reconstruction": ("reconstruction/rows.csv", ["seed", "mask_ratio", "draw"]),
    "speed": ("speed_timings.csv", ["method", "tokens", "batch_size"]),
}
ARRAYS = {
    "class_grid": "evaluation/class_grid.npz",
    "decoding": "evaluation/decoding.npz",
    "neighbours": "evaluation/neighbours.npz",
    "edits": "editing/pictures.npz",
    "rebuilt": "reconstruction/pictures.npz",
}
# Every field of `Results` that an exhibit uses, and its file or folder, relative to results/.
FILES = {name: file for name, (file, _) in TABLES.items()} | ARRAYS
FILES |= {"evaluation": "evaluation/metrics.json", "curves": "../data/schedules"}
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Results:
    """The contents of all result files; the stages that write the files document the columns."""

    folder: Path
    curves: dict[str, pd.DataFrame]  # swept schedule → columns r and gamma
    evaluation: dict[str, dict[str, float]]  # a key of `MODELS` → metric → mean over seeds
    extractor: str  # main feature extractor, for FID, IS and KID
    second_extractor: str  # second feature extractor, for precision and recall
    rows: pd.DataFrame  # one row per set of images, such as a training run's samples
    real: pd.DataFrame  # held-out real images, in sets of several sizes
    sweep: pd.DataFrame  # one row per schedule, iterations and seed
    crossing: pd.DataFrame  # rows per training schedule and decoding schedule
    designs: pd.DataFrame  # rows per design of `sweep.designs`, iterations and seed
    oracle: pd.DataFrame  # rows per number of tokens, decoding setting and group of samples
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
    sources: dict[str, Record]  # stage → run, commit, machine, …; empty where none was recorded

    def metric(self, kind: str) -> str:
        """The column that holds a metric: `fid_classifier` for "fid", `nll` for "nll"."""
        return f"{kind}_{self.extractor}" if kind in FEATURE_METRICS else kind

    def label(self, kind: str) -> str:
        """The label of a metric: "FID (classifier)" for "fid"."""
        return metric_label(self.metric(kind), self.extractor)

    def axis(self, kind: str) -> str:
        """The label of a chart's axis: "FID (classifier), lower is better"."""
        better = "lower" if kind in LOWER_IS_BETTER else "higher"
        return f"{self.label(kind)}, {better} is better"

    @property
    def manifold_extractors(self) -> tuple[str, str]:
        """The feature extractors for precision and recall, as (Table 1's, Table 5's). As in the
        paper, VGG goes first and Inception second. With neither, FID's extractor goes first."""
        pair = (self.extractor, self.second_extractor)
        as_printed = self.second_extractor == "vgg" or self.extractor == "inception"
        return pair[::-1] if as_printed else pair

    def trained_with(self, smoothing: float) -> pd.DataFrame:
        """The rows of training runs with this label smoothing: one per network and seed."""
        smoothed = has_param(self.rows["label_smoothing"], smoothing)
        return self.rows[self.rows["images"].isin(NETWORKS) & smoothed]

    def other_smoothings(self, main: float) -> list[float]:
        """The label smoothings that the networks were trained with, except `main`."""
        column = self.rows["label_smoothing"].dropna()
        return sorted(set(column[~has_param(column, main)]))


def read_results(folder: Path) -> Results:
    """Read every result file, and the curve γ of each schedule. Raises a `UserError` if a file is
    missing or damaged."""
    tables = {name: read_rows(folder / file, keys, []) for name, (file, keys) in TABLES.items()}
    metrics = read_json(folder / FILES["evaluation"], *MODELS, way_out=DAMAGED)
    evaluation = {name: with_nan(values) for name, values in metrics.items()}
    columns = list(evaluation["transformer"])
    extractor = _extractors("fid", columns)[0]
    others = [name for name in _extractors("precision", columns) if name != extractor]
    return Results(
        folder=folder,
        curves=_read_curves(folder / FILES["curves"], sorted(set(tables["sweep"]["schedule"]))),
        evaluation=evaluation,
        extractor=extractor,
        second_extractor=others[0],
        data=read_metrics(folder / "prepare/metrics.json"),
        tokenizer=read_metrics(folder / "tokenizer/metrics.json"),
        sources={f.stem: read_json(f) for f in sorted((folder / "sources").glob("*.json"))},
        **tables,
        **{name: _read_arrays(folder / file) for name, file in ARRAYS.items()},
    )


def _extractors(kind: str, columns: Iterable[str]) -> list[str]:
    """The feature extractors in a metric's column names: "classifier" in `fid_classifier`."""
    return [match[1] for name in columns if (match := re.fullmatch(rf"{kind}_([^_]+)", name))]


def _read_arrays(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError as error:
        raise UserError(str(path), "missing", MISSING) from error
    except Exception as error:  # np.load raises nearly any type for a damaged file
        raise UserError(str(path), "damaged", DAMAGED) from error


def _read_curves(folder: Path, schedules: Iterable[str]) -> dict[str, pd.DataFrame]:
    """The curve γ(r) of each schedule."""
    found, gamma = {}, f"gamma_{CURVE_TOKENS}"
    for name in schedules:
        rows = read_rows(folder / f"{name}.csv", ["r"], [gamma])
        found[name] = rows[["r", gamma]].rename(columns={gamma: "gamma"})
    return found


def measure_note(params: Params, extractor: str) -> str:
    """A note for tables: what FID is measured against, and over how many splits IS is computed."""
    evaluation = params.evaluation
    published = evaluation.reference_statistics
    reference = f"the statistics in {Path(published).name}" if published else "the training images"
    splits = "1 split" if evaluation.is_splits == 1 else f"{evaluation.is_splits} splits"
    return f"FID ({extractor}) is measured against {reference}, IS ({extractor}) over {splits}."


def neighbour_metrics(columns: Iterable[str], extractor: str) -> list[str]:
    """The `columns` that hold precision, recall, density, coverage or user-added metrics, measured
    with `extractor`. The order is that of `FEATURE_METRICS`."""
    names = (f"{kind}_{extractor}" for kind in FEATURE_METRICS if kind not in DISTRIBUTION)
    return [name for name in names if name in columns]


def metric_label(name: str, extractor: str) -> str:
    """A metric's label, with the extractor if the metric uses features: "FID (classifier)"."""
    kind = name.removesuffix(f"_{extractor}")
    if kind in FEATURE_METRICS and kind != name:
        return f"{FEATURE_METRICS[kind]} ({extractor})"
    return OTHER_METRICS.get(name, name.replace("_", " "))
