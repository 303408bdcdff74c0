"""Which rows the params of a stage ask for, as its record has them: a table that was cut at the end
of a line looks like any other."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.exhibits.inputs.metrics import EDITS, NETWORKS
from pipeline.runtime.records import Record
from pipeline.runtime.result_files import reading, require_cells

SEEDS = "evaluation.seeds"


class Grid(NamedTuple):
    """Rows that a stage was asked for: every combination of the values of some columns."""

    field: str  # of `Results`
    stage: str
    # For each column the param that lists its values, these themselves, or None: the table's own.
    axes: dict[str, str | list[str] | None]


GRIDS = (
    Grid(
        "sweep",
        "sweep",
        {"schedule": "sweep.schedules", "iterations": "sweep.iterations", "seed": "sweep.seeds"},
    ),
    Grid(
        "crossing",
        "sweep",
        {
            "schedule": "sweep.crossed",
            "decoding_schedule": "sweep.crossed",
            "seed": "sweep.seeds",
        },
    ),
    Grid(
        "cas",
        "cas",
        {"images": ["real", *NETWORKS], "augmentation": ["none", "randaugment"], "seed": SEEDS},
    ),
    Grid("temperature", "temperature", {"choice_temperature": "temperature.values", "seed": SEEDS}),
    Grid(
        "rejection",
        "reject",
        {
            "network": [*NETWORKS],
            "selection": ["rejection", "random"],
            "acceptance": "rejection.acceptance",
            "seed": SEEDS,
        },
    ),
    Grid(
        "reconstruction",
        "reconstruct",
        {"mask_ratio": "reconstruction.mask_ratios", "seed": SEEDS, "draw": None},
    ),
    # Of released weights there is no other label smoothing.
    *(
        Grid("rows", "evaluate", {"images": [network], "label_smoothing": None, "seed": SEEDS})
        for network in NETWORKS
    ),
    Grid("editing", "edit", {"task": [*EDITS], "method": ["maskgit"], "seed": SEEDS}),
    Grid(
        "speed",
        "speed",
        {
            "method": ["maskgit", "ar_cached", "ar_uncached"],
            "batch_size": "speed.batch_sizes",
            "tokens": None,
        },
    ),
)


def require_grids(
    tables: Mapping[str, pd.DataFrame],
    paths: Mapping[str, Path],
    records: Mapping[str, Record],
    folder: Path,
) -> None:
    """Refuse a table that lacks a row of those that its stage was asked for. Of a column whose
    param no record has, these are the values that stand in it.

    Args:
        paths: of the tables.
        folder: of the records.

    Raises:
        UserError: a row is missing, or a param in a record is damaged.
    """
    for grid in GRIDS:
        params = records[grid.stage].params if grid.stage in records else {}
        with reading(folder / f"{grid.stage}.json") if params else nullcontext():
            require_cells(paths[grid.field], tables[grid.field], _values(grid, tables, params))


def _values(
    grid: Grid, tables: Mapping[str, pd.DataFrame], params: Mapping[str, Any]
) -> dict[str, Sequence[Any]]:
    """The values of each column."""
    known = {k: params.get(v) if isinstance(v, str) else v for k, v in grid.axes.items()}
    own = tables[grid.field]
    for name, values in grid.axes.items():
        own = own[own[name].isin(values)] if isinstance(values, list) else own
    return {k: own[k].dropna().unique() if v is None else v for k, v in known.items()}
