"""Reading the result files: all of them, before anything is written."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.exhibits.inputs.arrays import Arrays, read_arrays
from analysis.exhibits.inputs.metrics import (
    MODELS,
    find_extractor,
    find_second_extractor,
    metric_column,
)
from analysis.exhibits.inputs.sweep import Sweep, read_curves, read_sweep
from pipeline.runtime.files import read_json
from pipeline.runtime.provenance import Record
from pipeline.runtime.tables import DAMAGED, read_metrics, read_rows, with_nan

# Fields of `Results`, the files that they are read from, and what must be in them: the keys that
# name a row, and values, with {x} for the extractor; the arrays of an .npz.
SCORES = ["fid_{x}", "is_{x}"]
MANIFOLD = ["precision_{x}", "recall_{x}", "density_{x}", "coverage_{x}"]
MACHINE = ["parameters", "threads", "device"]
TABLES: dict[str, tuple[str, list[str], list[str]]] = {
    "rows": (
        "evaluation/rows.csv",
        ["images", "label_smoothing", "seed"],
        ["samples", *SCORES, *MANIFOLD, "class_accuracy"],
    ),
    "real": ("evaluation/real.csv", ["samples", "subset"], [*SCORES, "class_accuracy"]),
    "crossing": (
        "sweep/crossing.csv",
        ["schedule", "decoding_schedule", "seed"],
        ["iterations", "samples", *SCORES],
    ),
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
        ["images", *SCORES, "class_accuracy", "psnr_hole", "perceptual_hole"],
    ),
    "rejection": (
        "rejection/rows.csv",
        ["network", "selection", "acceptance", "seed"],
        ["candidates", "samples", *SCORES, *MANIFOLD, "class_accuracy"],
    ),
    "reconstruction": (
        "reconstruction/rows.csv",
        ["seed", "mask_ratio", "draw"],
        ["images", "hidden", "psnr", "psnr_std", "perceptual", "perceptual_std"],
    ),
    "speed": (
        "speed_timings.csv",
        ["method", "tokens", "batch_size"],
        ["iterations", "seconds_per_image", "low", "high", "repeats", *MACHINE],
    ),
}
ARRAYS = {
    "class_grid": (
        "evaluation/class_grid.npz",
        ("class_names", "transformer", "autoregressive", "real"),
    ),
    "decoding": ("evaluation/decoding.npz", ("images", "masked")),
    "neighbours": ("evaluation/neighbours.npz", ("samples", "nearest", "distance")),
    "edits": (
        "editing/pictures.npz",
        ("inpainting", "class_edit_labels", "class_edit", "outpainting", "panorama"),
    ),
    "rebuilt": (
        "reconstruction/pictures.npz",
        ("originals", "inputs", "samples", "medians", "hidden"),
    ),
}


@dataclass(frozen=True, eq=False)  # one is the same as itself alone, and so can be a key
class Results:
    """What the stages left behind, read; the files are described in the stages."""

    folder: Path
    sweep: Sweep
    curves: dict[str, pd.DataFrame]  # swept schedule → columns r and gamma
    evaluation: dict[str, dict[str, float]]  # a key of `MODELS` → metric → mean over seeds
    extractor: str  # of FID, IS and KID
    second_extractor: str  # of precision and recall, beside the first
    rows: pd.DataFrame  # every set of images that was measured: of each training, real, …
    real: pd.DataFrame  # held-out real images at other numbers of them
    crossing: pd.DataFrame  # training schedule × decoding schedule
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
    left_out: frozenset[str]  # exhibits whose results are out of date, by anchor

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


def read_results(folder: Path, curves: Path) -> Results:
    """Read every result file.

    Args:
        curves: folder with γ of each schedule as numbers.

    Raises:
        UserError: one is missing or damaged, or lacks a column.
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
    return Results(
        folder=folder,
        sweep=sweep,
        curves=read_curves(curves, sorted(set(sweep.rows["schedule"]))),
        evaluation=evaluation,
        extractor=extractor,
        second_extractor=find_second_extractor(metrics, extractor, metrics_file),
        data=read_metrics(
            folder / "prepare/metrics.json",
            "train_images",
            "val_images",
            "classes",
            "largest_class",
        ),
        tokenizer=read_metrics(folder / "tokenizer/metrics.json", "psnr", "code_usage"),
        sources={f.stem: read_json(f) for f in sorted((folder / "sources").glob("*.json"))},
        left_out=frozenset(),
        **tables,
        **arrays,
    )


def read_evaluation(path: Path) -> dict[str, dict[str, float]]:
    """Read the metrics of every set of images, NaN for what could not be measured.

    Raises:
        UserError: the file is missing or damaged, or lacks a set.
    """
    metrics = read_json(path, *MODELS, way_out=DAMAGED)
    return {name: with_nan(values) for name, values in metrics.items()}
