"""Which rows the params of a stage ask for, as its record has them: a table that was cut at the end
of a line looks like any other."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pandas as pd

from analysis.exhibits.inputs.metrics import EDITS, NETWORKS
from pipeline.runtime.records import Record
from pipeline.runtime.result_files import reading, require_cells

SEEDS = "evaluation.seeds"
# Of a field of `Results` the stage, and for each column the param that lists its values, or these
# themselves; None: those that the table has.
GRIDS: dict[str, tuple[str, dict[str, str | list[str] | None]]] = {
    "sweep": (
        "sweep",
        {"schedule": "sweep.schedules", "iterations": "sweep.iterations", "seed": "sweep.seeds"},
    ),
    "crossing": (
        "sweep",
        {
            "schedule": "sweep.crossed",
            "decoding_schedule": "sweep.crossed",
            "seed": "sweep.seeds",
        },
    ),
    "cas": (
        "cas",
        {
            "images": ["real", *NETWORKS],
            "augmentation": ["none", "randaugment"],
            "seed": SEEDS,
        },
    ),
    "temperature": ("temperature", {"choice_temperature": "temperature.values", "seed": SEEDS}),
    "rejection": (
        "reject",
        {
            "network": [*NETWORKS],
            "selection": ["rejection", "random"],
            "acceptance": "rejection.acceptance",
            "seed": SEEDS,
        },
    ),
    "reconstruction": (
        "reconstruct",
        {"mask_ratio": "reconstruction.mask_ratios", "seed": SEEDS, "draw": None},
    ),
    "rows": ("evaluate", {"images": [*NETWORKS], "seed": SEEDS}),
    "editing": ("edit", {"task": [*EDITS], "method": ["maskgit"], "seed": SEEDS}),
    "speed": (
        "speed",
        {
            "method": ["maskgit", "ar_cached", "ar_uncached"],
            "batch_size": "speed.batch_sizes",
            "tokens": None,
        },
    ),
}


def require_grids(
    tables: Mapping[str, pd.DataFrame],
    paths: Mapping[str, Path],
    records: Mapping[str, Record],
    folder: Path,
) -> None:
    """Refuse a table that lacks a row of those that its stage was asked for. Of a column whose
    param no record has, it is not known what it was asked for.

    Args:
        paths: of the tables.
        folder: of the records.

    Raises:
        UserError: a row is missing, or a param in a record is damaged.
    """
    for field, (stage, axes) in GRIDS.items():
        params = records[stage].params if stage in records else {}
        with reading(folder / f"{stage}.json") if params else nullcontext():
            wanted = {k: params.get(v) if isinstance(v, str) else v for k, v in axes.items()}
            wanted |= {k: tables[field][k].unique() for k, v in axes.items() if v is None}
            known = {k: values for k, values in wanted.items() if values is not None}
            if known:
                require_cells(paths[field], tables[field], known)
