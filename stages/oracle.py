"""Tests decoding alone: a known distribution's exact probabilities replace the network's."""

from pipeline.config.params import Params
from pipeline.config.paths import CURVES, RESULTS
from pipeline.experiments.oracle import METRICS, oracle_rows
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import write_csv
from pipeline.runtime.stage import Stage


def main(params: Params) -> str:
    path = RESULTS / "oracle/rows.csv"
    workers = workers_of(params.ray.model_copy(update={"use_gpu": False}))
    with Stage("oracle", params) as stage:
        rows = oracle_rows(params, stage.folder("oracle", CURVES.as_posix()), workers)
        write_csv(path, rows)
        stage.run.log_artifact(path)
        settings = [name for name in rows[0] if name not in {*METRICS, "group"}]
        stage.run.log_means(
            rows,
            lambda row: "_".join(str(row[name]) for name in settings if name != "iterations"),
            {*settings, "group"},
            lambda row: row["iterations"] or 0,
        )
    return f"oracle: {len(rows)} rows in {path}"
