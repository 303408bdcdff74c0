"""The ablation over mask schedule and iteration count, with Ray Tune."""

from dataclasses import replace
from statistics import fmean
from typing import Any

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.config.trainings import named_by
from pipeline.evaluation.feature_files import reference_features, reference_statistics
from pipeline.evaluation.fid import require_dimensions
from pipeline.evaluation.metrics import require_enough
from pipeline.experiments.ablation.grid import Trial, axes, measured, trial_workers, trials
from pipeline.experiments.ablation.measuring import run_trial
from pipeline.runtime.files import write_csv
from pipeline.runtime.run_log import RunLog
from pipeline.runtime.stage import Stage
from stages.running import require_room, run_jobs, run_stage

NOTE = (
    "A training with this schedule and seed (`train/`, by step), decoded with every T: `samples/`, "
    "whose step is T. `samples_best/` is over T."
)


def main(params: Params) -> str:
    stage = Stage("sweep", params)
    grid, workers = trials(params, stage), trial_workers(params)
    require_room(grid, workers, named_by(params, "sweep.workers_per_trial"))
    with stage:
        grid = [replace(trial, run=_run_of(trial, stage)) for trial in grid]
        for trial in grid:
            if trial.finished:
                _log(trial)
        if not all(trial.finished for trial in grid):
            require_reference(params)
        try:
            run_jobs(run_trial, grid, workers, stage, "trials", lambda trial, _: _log(trial))
        finally:
            for trial in grid:
                if not trial.finished:
                    trial.run.finish(ok=False)
        rows = [row for trial in grid for row in measured(trial.cells)]
        write_csv(RESULTS / "sweep/rows.csv", rows)
        crossing = [row for trial in grid for row in trial.crossing()]
        columns = ["schedule", "decoding_schedule", *(k for k in rows[0] if k != "schedule")]
        write_csv(RESULTS / "sweep/crossing.csv", crossing, columns)
        timings = [
            row | {"run_id": trial.run.run_id}
            for trial in grid
            for row in measured(trial.cells, "timing")
        ]
        write_csv(RESULTS / "sweep_timings.csv", timings)
        stage.run.log_artifact(RESULTS / "sweep/rows.csv")
        best = _best(rows, params)  # numbers are logged as metrics, text as tags
        stage.run.log_group("best", best)
        stage.run.log_tags({f"best.{k}": v for k, v in best.items() if isinstance(v, str)})
    return f"sweep: {len(rows)} cells (schedule × T × seed) in {RESULTS / 'sweep/rows.csv'}"


def _run_of(trial: Trial, stage: Stage) -> RunLog:
    own = {"schedule": trial.schedule, "seed": trial.seed}
    return stage.run.child(f"{stage.hash}/{trial.name}", trial.name, own, NOTE)


def require_reference(params: Params) -> None:
    """Raise a `UserError` if the samples of a trial will be too few to compare with the training
    images, which params cannot tell of the features of a torchvision network, or if published
    statistics are of other features."""
    evaluation = params.evaluation
    count, dimensions = reference_features(evaluation.extractor).shape
    require_enough("sweep.samples", params.sweep.samples, (count, dimensions), evaluation)
    require_dimensions(reference_statistics(params), dimensions)


def _log(trial: Trial) -> None:
    """Log a finished trial: its training curve, its metrics with T as the step, and its best T.
    MLflow draws groups in the order of their names: Figure 8, `samples`, is the first."""
    run = trial.run.begin()  # its worker may have logged on another machine
    for row in trial.training.history if trial.training else ():
        run.log_training(row)
    params, rows = trial.params, measured(trial.cells)
    others = [name for name in axes(params) if name != "iterations"]
    keys = ("schedule", "decoding_schedule", "seed", "samples", "iterations", *others)

    def log(cells: list[dict[str, Any]], name: str) -> None:
        run.log_means(
            cells,
            lambda row: " ".join([name.format(**row), *(f"{k} {row[k]}" for k in others)]),
            keys,
            lambda row: row["iterations"],
        )

    log(rows, "samples")
    log(trial.crossing(), "samples_decoded_{decoding_schedule}")
    run.log_group("samples_best", _best(rows, params))
    run.finish(ok=True)


def _best(rows: list[dict[str, Any]], params: Params) -> dict[str, Any]:
    """The cell with the lowest FID, the mean over seeds: what tells it from others, and its FID. It
    is chosen on its own samples."""
    fid, names = f"fid_{params.evaluation.extractor}", ("schedule", *axes(params))
    cells: dict[tuple, list[float]] = {}
    for row in rows:
        cells.setdefault(tuple(row[name] for name in names), []).append(row[fid])
    best = min(cells, key=lambda cell: fmean(cells[cell]))
    return dict(zip(names, best, strict=True)) | {fid: fmean(cells[best])}


if __name__ == "__main__":
    run_stage(main)
