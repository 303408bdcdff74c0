"""The ablation over mask schedule and iteration count, with Ray Tune."""

from statistics import fmean
from typing import Any

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, RESULTS
from pipeline.config.trainings import named_by
from pipeline.evaluation.feature_files import kept_statistics, load_features, reference_features
from pipeline.evaluation.features import open_extractor
from pipeline.evaluation.fid import require_dimensions
from pipeline.evaluation.metrics import require_enough
from pipeline.evaluation.statistics import load_statistics
from pipeline.experiments.ablation.grid import trial_workers, trials
from pipeline.experiments.ablation.running import TrackedTrial, run_tracked
from pipeline.experiments.ablation.trial import Trial
from pipeline.runtime.batches import Alone, workers_of
from pipeline.runtime.files import write_csv
from pipeline.runtime.progress import Countdown
from pipeline.runtime.project import of_project
from pipeline.runtime.ray_cluster import join_ray, require_resources
from pipeline.runtime.run_log import RunLog
from pipeline.runtime.stage import Stage
from pipeline.runtime.storage import storage, upload
from pipeline.runtime.trials import run_trials
from pipeline.weights.published import load_model
from stages.running import run_stage

KEYS = ("schedule", "decoding_schedule", "seed", "iterations", "samples")


def main(params: Params) -> str:
    stage = Stage("sweep", params)
    grid = trials(params, stage)
    pending = [trial for trial in grid if not trial.finished]
    workers = workers_of(params.ray) if pending else None
    if pending:
        join_ray()
        ray, each = params.ray, trial_workers(params).count
        key = named_by(params, "sweep.workers_per_trial")
        require_resources(each, ray.cpus_per_worker, ray.use_gpu, key)
    with stage:
        count = Countdown("sweep", "trials", len(grid), len(pending))
        names = {trial.name for trial in pending}
        tracked = [TrackedTrial(trial, _child(stage, trial)) for trial in grid]
        for done in tracked:
            if done.name not in names:
                done.run.begin()
                _log(done, params)
        if workers:
            _keep_reference(params, workers)
            workers.end()  # or trials would wait for their CPUs and GPUs for ever
            _run([t for t in tracked if t.name in names], params, stage, count)
        rows = [row for trial in grid for row in trial.rows()]
        write_csv(RESULTS / "sweep/rows.csv", rows)
        write_csv(
            RESULTS / "sweep/crossing.csv",
            [row for trial in grid for row in trial.crossing()],
            columns=["schedule", "decoding_schedule", *(k for k in rows[0] if k != "schedule")],
        )
        timings = [
            row | {"run_id": one.run.run_id} for one in tracked for row in one.trial.timings()
        ]
        write_csv(RESULTS / "sweep_timings.csv", timings)
        stage.run.log_artifact(RESULTS / "sweep/rows.csv")
        _log_best(rows, stage.run, f"fid_{params.evaluation.extractor}")
    return f"sweep: {len(rows)} cells (schedule × T × seed) in {RESULTS / 'sweep/rows.csv'}"


def _child(stage: Stage, trial: Trial) -> RunLog:
    note = (
        "A training with this schedule and seed (`train/`, by step), decoded with every T: "
        "`samples/`, whose step is T. `samples_best/` is over T."
    )
    return stage.run.child(f"{stage.hash}/{trial.name}", trial.name, trial.identity, note)


def _run(pending: list[TrackedTrial], params: Params, stage: Stage, count: Countdown) -> None:
    workers = trial_workers(params)
    needs = workers.needs(stage.folder())

    def log(tracked: TrackedTrial, value: None) -> None:
        if storage() is not None:  # its worker may have logged on another machine
            tracked.run.begin()
        _log(tracked, params)
        count.done(tracked.name)

    try:
        run_trials(run_tracked, pending, needs, stage="sweep", on_done=log)
    finally:
        for tracked in pending:
            if not tracked.finished:
                tracked.run.finish(ok=False)


def _keep_reference(params: Params, workers: Alone) -> None:
    """Compute the features of the training images and their statistics once, before every trial
    needs them.

    Raises:
        UserError: the samples of a trial will be too few to compare with them, which params cannot
            tell of features whose dimensions a torchvision network decides; or published statistics
            are of other features.
    """
    evaluation = params.evaluation
    classifier = load_model(CLASSIFIER, "classifier", workers.device)
    extractor = open_extractor(evaluation.extractor, classifier, evaluation, workers.device)
    features = reference_features(extractor, params, workers)
    count, dimensions = load_features(features).features.shape
    require_enough("sweep.samples", params.sweep.samples, (count, dimensions), evaluation)
    if evaluation.reference_statistics:
        published = load_statistics(of_project(evaluation.reference_statistics))
        require_dimensions(published, dimensions)
    else:
        kept_statistics(features)
    for path in features.parent.glob("[!.]*.*"):
        upload(path)  # for trials on nodes that do not see this folder


def _log(tracked: TrackedTrial, params: Params) -> None:
    """Log a finished trial: its training curve, its metrics with T as the step, and its best T.
    MLflow draws groups in the order of their names: Figure 8, `samples`, is the first."""
    trial, run = tracked.trial, tracked.run
    for row in trial.history():
        run.log_training(row)
    run.log_means(trial.rows(), lambda row: "samples", KEYS, _iterations)
    run.log_means(
        trial.crossing(),
        lambda row: f"samples_decoded_{row['decoding_schedule']}",
        KEYS,
        _iterations,
    )
    fid = f"fid_{params.evaluation.extractor}"
    best = min(trial.rows(), key=lambda row: row[fid])
    run.log_group("samples_best", {"iterations": best["iterations"], fid: best[fid]})
    run.finish(ok=True)


def _iterations(row: dict[str, Any]) -> int:
    return row["iterations"]


def _log_best(rows: list[dict[str, Any]], run: RunLog, fid: str) -> None:
    """Log the cell (schedule, T) with the lowest mean over seeds, which is chosen on its own
    samples: the schedule as a tag, since a metric is a number."""
    cells: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        cells.setdefault((row["schedule"], row["iterations"]), []).append(row[fid])
    best = min(cells, key=lambda cell: fmean(cells[cell]))
    run.log_group("best", {"iterations": best[1], fid: fmean(cells[best])})
    run.log_tags({"best.schedule": best[0]})


if __name__ == "__main__":
    run_stage(main)
