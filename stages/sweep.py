"""The ablation over mask schedule and iteration count, with Ray Tune."""

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, RESULTS
from pipeline.evaluation.features import open_extractor, reference_features
from pipeline.experiments.ablation.grid import trials
from pipeline.experiments.ablation.trial import Trial
from pipeline.experiments.tuning import run_trials, workers_per_trial
from pipeline.runtime.cluster import join_ray, require_resources
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import write_csv
from pipeline.runtime.stage import Stage
from pipeline.runtime.tracking import Run
from pipeline.weights.published import load_model
from stages.running import run_stage


def main(params: Params) -> str:
    stage = Stage("sweep", params)
    grid = trials(params, stage)
    pending = [trial for trial in grid if trial.missing()]
    if pending:
        join_ray()
        ray, workers = params.ray, workers_per_trial(params)
        require_resources(workers, ray.cpus_per_worker, ray.use_gpu, "sweep.workers_per_trial")
    with stage:
        print(f"sweep: {len(grid)} trials, {len(grid) - len(pending)} finished before")
        children = {
            trial.name: stage.run.child(f"{stage.hash}/{trial.name}", trial.name, trial.identity)
            for trial in grid
        }
        for trial in grid:
            if trial not in pending:
                _log(trial, children[trial.name], params)
        if pending:
            _run(pending, children, params)
        rows = [row for trial in grid for row in trial.rows()]
        write_csv(RESULTS / "sweep/rows.csv", rows)
        timings = [
            row | {"run_id": children[trial.name].run_id}
            for trial in grid
            for row in trial.timings()
        ]
        write_csv(RESULTS / "sweep_timings.csv", timings)
        stage.run.log_artifact(RESULTS / "sweep/rows.csv")
    return f"sweep: {len(rows)} cells (schedule × T × seed) in {RESULTS / 'sweep/rows.csv'}"


def _run(pending: list[Trial], children: dict[str, Run], params: Params) -> None:
    _keep_reference(params)
    try:
        run_trials(pending, params, on_done=lambda trial: _log(trial, children[trial.name], params))
    finally:
        for trial in pending:
            if trial.missing():
                children[trial.name].finish(ok=False)


def _keep_reference(params: Params) -> None:
    """Compute the features of the training images once, before every trial needs them."""
    device, evaluation = pick_device(), params.evaluation
    classifier = load_model(CLASSIFIER, "classifier", device)
    reference_features(open_extractor(evaluation.extractor, classifier, evaluation, device), params)


def _log(trial: Trial, child: Run, params: Params) -> None:
    """Log a finished trial: its training curve, its metrics with T as the step, and its best T."""
    for row in trial.history():
        metrics = {f"train/{k}": v for k, v in row.items() if k != "step"}
        child.log_metrics(metrics, int(row["step"]))
    rows = trial.rows()
    for cell in rows:
        names = [k for k in cell if k not in ("schedule", "seed", "iterations", "samples")]
        child.log_metrics({k: cell[k] for k in names}, step=cell["iterations"])
    fid = f"fid_{params.evaluation.extractor}"
    best = min(rows, key=lambda row: row[fid])
    child.log_metrics({"best_iterations": best["iterations"], f"best_{fid}": best[fid]})
    child.finish(ok=True)


if __name__ == "__main__":
    run_stage(main, curves=lambda params: params.sweep.schedules)
