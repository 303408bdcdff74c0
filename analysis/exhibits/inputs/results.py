"""Reading the result files: all of them, before anything is written."""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.exhibits.inputs.arrays import (
    MASKS,
    NAMES,
    NUMBERS,
    PICTURES,
    Arrays,
    Shape,
    read_arrays,
)
from analysis.exhibits.inputs.grids import require_grids
from analysis.exhibits.inputs.metrics import (
    MODELS,
    NETWORKS,
    find_extractor,
    find_second_extractor,
    metric_column,
)
from analysis.exhibits.inputs.sweep import Sweep, read_curves, read_sweep
from pipeline.runtime.bounds import bounds_of
from pipeline.runtime.records import Record, read_records
from pipeline.runtime.result_files import (
    Damaged,
    metrics_in,
    read_numbers,
    read_rows,
    read_values,
)

# Fields of `Results`, the files that they are read from, and what must be in them: the keys that
# name a row, and values, with {x} for the extractor; arrays, each with its kind and axes. What a
# number can be at all says `pipeline.runtime.bounds`.
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
# Words of images that no network drew: their rows have no seed.
UNSEEDED = {"rows": ["real", "reconstruction"], "editing": ["original", "nearest"]}
MAY_BE_EMPTY = ("real", "crossing")  # too few validation images; nothing is to be crossed
ARRAYS: dict[str, tuple[str, dict[str, Shape]]] = {
    "class_grid": (
        "evaluation/class_grid.npz",
        {
            "class_names": Shape(NAMES, "c"),
            "transformer": Shape(PICTURES, "c n h w k"),
            "autoregressive": Shape(PICTURES, "c n h w k"),
            "real": Shape(PICTURES, "c m h w k"),
        },
    ),
    "decoding": (
        "evaluation/decoding.npz",
        {"images": Shape(PICTURES, "t n h w k"), "masked": Shape(MASKS, "t n g g")},
    ),
    "neighbours": (
        "evaluation/neighbours.npz",
        {
            "samples": Shape(PICTURES, "n h w k"),
            "nearest": Shape(PICTURES, "n m h w k"),
            "distance": Shape(NUMBERS, "n m"),
        },
    ),
    "edits": (
        "editing/pictures.npz",
        {
            "inpainting": Shape(PICTURES, "n m h w k"),
            "class_edit_labels": Shape(NAMES, "c"),
            "class_edit": Shape(PICTURES, "e c+2 h w k"),
            "outpainting": Shape(PICTURES, "o s h w k"),
            "panorama": Shape(PICTURES, "p h v k"),
        },
    ),
    "rebuilt": (
        "reconstruction/pictures.npz",
        {
            "originals": Shape(PICTURES, "n h w k"),
            "inputs": Shape(PICTURES, "r n h w k"),
            "samples": Shape(PICTURES, "r n h w k"),
            "medians": Shape(PICTURES, "r n h w k"),
            "hidden": Shape(NUMBERS, "r"),
        },
    ),
}
# What exhibits need of the metrics of a set of images, and of a network's.
MEASURED = ["samples", "class_accuracy", "fid_{x}", "is_{x}"]
COSTS = ["parameters", "steps"]
# What the report says of a stage's run.
SHOWN = ["run_id", "key", "commit", "dirty", "finished", "seconds", "host", "cpus", "memory_gib"]
SHOWN += ["gpus"]


@dataclass(frozen=True, eq=False)  # one is the same as itself alone, and so can be a key
class Results:
    """What the stages left behind, read and checked; the files are described in the stages."""

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
        UserError: one is missing or damaged, or lacks a column; one line that names it.
    """
    sweep_file = folder / "sweep/rows.csv"
    sweep = read_sweep(sweep_file)
    metrics_file = folder / "evaluation/metrics.json"
    evaluation = read_evaluation(metrics_file)
    metrics = list(evaluation["transformer"])
    extractor = find_extractor(metrics, metrics_file)
    tables = {
        field: read_rows(
            folder / name,
            keys,
            [value.format(x=extractor) for value in values],
            may_be_empty=field in MAY_BE_EMPTY,
            unseeded=UNSEEDED.get(field, ()),
        )
        for field, (name, keys, values) in TABLES.items()
    }
    if lacking := MODELS.keys() - set(tables["rows"]["images"]):
        raise Damaged(folder / TABLES["rows"][0], f"has no rows of {min(lacking)}")
    _require_metrics(metrics_file, evaluation, extractor)
    arrays = {field: read_arrays(folder / name, shapes) for field, (name, shapes) in ARRAYS.items()}
    sources = read_records(folder / "sources", SHOWN)
    paths = {field: folder / name for field, (name, *_) in TABLES.items()}
    every, files = tables | {"sweep": sweep.rows}, paths | {"sweep": sweep_file}
    require_grids(every, files, sources, folder / "sources")
    return Results(
        folder=folder,
        sweep=sweep,
        curves=read_curves(curves, sorted(set(sweep.rows["schedule"]))),
        evaluation=evaluation,
        extractor=extractor,
        second_extractor=find_second_extractor(metrics, extractor, metrics_file),
        data=read_numbers(
            folder / "prepare/metrics.json",
            ["train_images", "val_images", "classes", "largest_class"],
        ),
        tokenizer=read_numbers(folder / "tokenizer/metrics.json", ["psnr", "code_usage"]),
        sources=sources,
        left_out=frozenset(),
        **tables,
        **arrays,
    )


def read_evaluation(path: Path) -> dict[str, dict[str, float]]:
    """Read the metrics of every set of images, NaN for what could not be measured.

    Raises:
        UserError: the file is missing or damaged, or lacks a set.
    """
    metrics = read_values(path)
    for name in MODELS:
        if not isinstance(metrics, dict) or name not in metrics:
            raise Damaged(path, f"has no metrics of {name}")
    return {name: metrics_in(path, values, f" of {name}") for name, values in metrics.items()}


def _require_metrics(path: Path, sets: dict[str, dict[str, float]], extractor: str) -> None:
    for name in MODELS:
        wanted = [metric.format(x=extractor) for metric in MEASURED]
        for metric in wanted + (COSTS if name in NETWORKS else []):
            value = sets[name].get(metric)
            if value is None or (bounds_of(metric).always and math.isnan(value)):
                raise Damaged(path, f"has no {metric} of {name}")
