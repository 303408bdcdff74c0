"""Trains a model per mask schedule and seed with Ray Tune, and measures its samples for each number
of iterations T. `sweep.designs` adds other decoding settings and numbers of training steps."""

from operator import itemgetter
from typing import Any

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.evaluation.features import reference_statistics
from pipeline.experiments.ablation import Trial, run_trial, trials, varied
from pipeline.runtime.files import write_csv
from pipeline.runtime.stage import Stage
from pipeline.training.loop.run import run_jobs
from stages.running import IDENTITY

NOTE = "Samples of a trial's model with other decoding settings (`T/`, where the step is T)."


def main(params: Params) -> str:
    file = RESULTS / "sweep/rows.csv"
    with Stage("sweep", params) as stage:
        grid = trials(params, stage)
        if not all(trial.finished for trial in grid):
            reference_statistics(params)  # raises if the file has other features
        run_jobs(run_trial, grid, "sweep.workers_per_trial", stage, "trials", _log)
        rows = [row for trial in grid for row in trial.rows()]
        write_csv(file, rows)
        crossing = [row for trial in grid for row in trial.crossing()]
        columns = ["schedule", "decoding_schedule", *(k for k in rows[0] if k != "schedule")]
        write_csv(RESULTS / "sweep/crossing.csv", crossing, columns)
        designs = [row for trial in grid for each in trial.design_rows().values() for row in each]
        columns = sorted({*rows[0], *varied(params), "passes"})
        write_csv(RESULTS / "sweep/designs.csv", designs, columns)
        stage.run.log_artifact(file)
        best = _best(rows, params)  # numbers are logged as metrics, text as tags
        stage.run.log_group("best", best)
        stage.run.log_tags({f"best.{k}": v for k, v in best.items() if isinstance(v, str)})
    return f"sweep: {len(rows)} rows (schedule × T × seed) in {file}"


def _log(trial: Trial) -> None:
    """Log a finished trial to MLflow: the training curve, the metrics with T as the step, and the T
    with the lowest FID. MLflow sorts metric groups by name, so it shows `T` (Figure 8) first."""
    run = trial.log.begin()  # its worker may have logged on another machine
    for row in trial.training.history if trial.training else ():
        run.log_training(row)
    own, names = trial.rows(), varied(trial.params)
    leave_out = {"schedule", "decoding_schedule", "iterations", "passes", *names, *IDENTITY}
    for rows, name in ((own, "T"), (trial.crossing(), "T_decoded_{decoding_schedule}")):
        run.log_means(rows, name.format_map, leave_out, lambda row: row["iterations"])
    run.log_group("T_best", _best(own, trial.params) if own else {})
    run.finish(ok=True)
    for other, rows in trial.design_rows().items():
        name = " ".join(f"{key}={value}" for key, value in other) or "main settings"
        log = run.child(f"{run.key}/{name}", name, {**run.params, **dict(other)}, NOTE).begin()
        log.log_means(rows, "T".format_map, leave_out, lambda row: row["iterations"])
        log.finish(ok=True)


def _best(rows: list[dict[str, Any]], params: Params) -> dict[str, Any]:
    """The schedule and number of iterations with the lowest FID (mean over seeds), and that FID.
    This FID is biased low, since the samples that it measures also selected the settings."""
    import pandas as pd

    fid, names = f"fid_{params.evaluation.extractor}", ["schedule", "iterations"]
    means = pd.DataFrame(rows).groupby(names, sort=False, as_index=False)[fid].mean()
    return min(means.to_dict("records"), key=itemgetter(fid))
