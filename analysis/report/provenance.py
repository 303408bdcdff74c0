"""Where the numbers of a table come from: result files, and the runs of the stages behind them."""

from pathlib import Path

import pandas as pd

from analysis.exhibits.base import Table
from analysis.exhibits.formatting import number
from analysis.exhibits.inputs.results import Results
from pipeline.runtime.files import file_hash, write_json
from pipeline.runtime.provenance import Record

TRAINED = [
    "schedules",
    "prepare",
    "train_classifier",
    "features",
    "train_tokenizer",
    "cache_tokens",
    "train_transformer",
    "train_autoregressive",
]
# The stages that a result file stands on, its own last; dvc.yaml has the same in its `deps`.
STAGES = {
    "evaluation/metrics.json": [*TRAINED, "evaluate"],
    "evaluation/rows.csv": [*TRAINED, "evaluate"],
    "evaluation/real.csv": [*TRAINED, "evaluate"],
    "cas/rows.csv": [*TRAINED, "evaluate", "cas"],
    "sweep/rows.csv": [*TRAINED[:6], "sweep"],
    "sweep/crossing.csv": [*TRAINED[:6], "sweep"],
    "temperature/rows.csv": [*TRAINED[:7], "temperature"],
    "editing/rows.csv": [*TRAINED[:7], "edit"],
    "rejection/rows.csv": [*TRAINED, "evaluate", "reject"],
    "reconstruction/rows.csv": [*(s for s in TRAINED[:7] if s != "features"), "reconstruct"],
    "speed_timings.csv": ["schedules", "prepare", "speed"],
}


def write_sources(table: Table, results: Results, folder: Path) -> Path:
    """Write `<table>.sources.json`: the SHA-256 of each result file that the table was made from,
    and of each stage behind them its run, commit and machine (null where that was not recorded)."""
    stages = dict.fromkeys(stage for name in table.files for stage in STAGES[name])
    path = folder / f"{table.name}.sources.json"
    write_json(
        path,
        {
            "files": {name: file_hash(results.folder / name) for name in table.files},
            "stages": {stage: results.sources.get(stage) for stage in stages},
        },
    )
    return path


def commit(entry: Record) -> str:
    """The commit that a stage's record names, and whether the code was changed since."""
    state = {False: "", True: " (changed)", None: " (changes unknown)"}[entry["dirty"]]
    return f"{entry['commit'][:12]}{state}"


def runs(results: Results) -> pd.DataFrame:
    """One row a stage: the run, commit and machine behind it; empty where none was recorded."""
    rows = [
        {
            "stage": stage,
            "commit": commit(entry),
            "run": entry["run_id"][:12],
            "params and inputs": entry["key"][:12],
            "seconds": number(entry["seconds"]),
            "finished": entry["finished"],
        }
        for stage, entry in results.sources.items()
    ]
    return pd.DataFrame(rows)
