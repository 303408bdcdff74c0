"""A folder of synthetic result files as the stages leave them, and the analysis of it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.exhibits.base import Table
from analysis.exhibits.inputs.results import read_results
from analysis.report.build import build
from analysis.report.contents import sections
from pipeline.config.params import Params
from tests.synthetic_pictures import pictures
from tests.synthetic_tables import (
    BEST_FID,
    cas_rows,
    crossing_rows,
    curve,
    editing_rows,
    evaluation_metrics,
    evaluation_rows,
    real_rows,
    reconstruction_rows,
    rejection_rows,
    speed_rows,
    sweep_rows,
    temperature_rows,
)

FILES = [
    "sweep/rows.csv",
    "sweep/crossing.csv",
    "evaluation/metrics.json",
    "evaluation/rows.csv",
    "evaluation/real.csv",
    "evaluation/class_grid.npz",
    "evaluation/decoding.npz",
    "evaluation/neighbours.npz",
    "cas/rows.csv",
    "temperature/rows.csv",
    "editing/rows.csv",
    "editing/pictures.npz",
    "rejection/rows.csv",
    "reconstruction/rows.csv",
    "reconstruction/pictures.npz",
    "speed_timings.csv",
    "prepare/metrics.json",
    "tokenizer/metrics.json",
]


def write_results(
    folder: Path, rows: pd.DataFrame | None = None, extractor: str = "classifier"
) -> Path:
    """Write every file of `FILES`, and a curve of each of the paper's schedules beside the folder;
    `rows` are the sweep's."""
    tables = {
        "sweep/rows.csv": sweep_rows(extractor=extractor) if rows is None else rows,
        "sweep/crossing.csv": crossing_rows(extractor),
        "evaluation/rows.csv": evaluation_rows(extractor),
        "evaluation/real.csv": real_rows(extractor),
        "cas/rows.csv": cas_rows(),
        "temperature/rows.csv": temperature_rows(extractor),
        "editing/rows.csv": editing_rows(extractor),
        "rejection/rows.csv": rejection_rows(extractor),
        "reconstruction/rows.csv": reconstruction_rows(),
        "speed_timings.csv": speed_rows(),
    }
    metrics = {
        "evaluation/metrics.json": evaluation_metrics(tables["evaluation/rows.csv"]),
        "prepare/metrics.json": {
            **{"train_images": 4000, "val_images": 1000, "classes": 3},
            "largest_class": 1 / 3,
        },
        "tokenizer/metrics.json": {"psnr": 18.75, "code_usage": 1.0},
    }
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / name, index=False)
    for name, values in metrics.items():
        (folder / name).write_text(json.dumps(values))
    for name, arrays in pictures().items():
        np.savez(folder / name, **arrays)
    curves_of(folder).mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(BEST_FID):
        curve(4 - place / 2).to_csv(curves_of(folder) / f"{name}.csv", index=False)
    return folder


def curves_of(results: Path) -> Path:
    """The folder of curves that `write_results` leaves, where it lies in a project."""
    return results.parent / "data/schedules"


def analyse(results: Path, output: Path, params: Params) -> list[Path]:
    """Everything that the analysis makes of a folder of `write_results`."""
    return build(results, curves_of(results), output, params)


def write_tables(results: Path, output: Path, params: Params) -> Path:
    """The tables that the analysis makes of a folder of `write_results`, and no figures."""
    for section in sections(read_results(results, curves_of(results)), params):
        for exhibit in section.exhibits:
            if isinstance(exhibit, Table):
                exhibit.write(output)
    return output


def write_source(folder: Path, stage: str, **changes) -> None:
    """What a stage records of its run."""
    source = {
        "run_id": f"{stage}-run",
        "key": "0123456789abcdef",
        "commit": "abcdef0123456789",
        "dirty": False,
        "finished": "2025-01-02T03:04:05Z",
        "seconds": 90.0,
        "host": "machine",
        "cpus": 2,
        "memory_gib": 16.0,
        "gpus": [],
        "params": {},
        "workers": [],
        "versions": {},
    }
    (folder / "sources").mkdir(exist_ok=True)
    (folder / f"sources/{stage}.json").write_text(json.dumps(source | changes))


def number_of_figures(report: Path) -> int:
    """How many pictures the analysis drew beside the report."""
    return len(list((report.parent / "figures").glob("*.png")))
