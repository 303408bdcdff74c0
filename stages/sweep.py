"""The ablation over mask schedule and iteration count, with Ray Tune."""

from pathlib import Path

from pipeline.evaluation.features import open_extractor, reference_features
from pipeline.layout import CLASSIFIER, RESULTS, TOKENS
from pipeline.models import load_model
from pipeline.params import Params
from pipeline.runtime.cluster import join_ray, require_resources
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import value_hash, write_csv
from pipeline.runtime.runs import run_dir, stage_key
from pipeline.runtime.stage import run_stage
from pipeline.runtime.tracking import Run, stage_run
from pipeline.sweep import GRID_PARAMS, MEASURING_PARAMS, Trial
from pipeline.tuning import run_trials, workers_per_trial


def main(params: Params) -> str:
    stage, trials = value_hash(stage_key("sweep")), _trials(params)
    pending = [trial for trial in trials if trial.missing()]
    if pending:
        join_ray()
        ray, workers = params.ray, workers_per_trial(params)
        require_resources(workers, ray.cpus_per_worker, ray.use_gpu, "sweep.workers_per_trial")
    with stage_run("sweep", params, stage) as run:
        print(f"sweep: {len(trials)} trials, {len(trials) - len(pending)} finished before")
        children = {
            trial.name: run.child(f"{stage}/{trial.name}", trial.name, _identity(trial))
            for trial in trials
        }
        for trial in trials:
            if trial not in pending:
                _log(trial, children[trial.name], params)
        if pending:
            try:
                run_trials(
                    pending,
                    params,
                    _reference(params),
                    on_done=lambda trial: _log(trial, children[trial.name], params),
                )
            finally:
                for trial in pending:
                    if trial.missing():
                        children[trial.name].finish(ok=False)
        rows = [row for trial in trials for row in trial.rows()]
        write_csv(RESULTS / "sweep/rows.csv", rows)
        timings = [
            row | {"run_id": children[trial.name].run_id}
            for trial in trials
            for row in trial.timings()
        ]
        write_csv(RESULTS / "sweep_timings.csv", timings)
        run.log_artifact(RESULTS / "sweep/rows.csv")
    return f"sweep: {len(rows)} cells (schedule × T × seed) in {RESULTS / 'sweep/rows.csv'}"


def _identity(trial: Trial) -> dict:
    return {"schedule": trial.schedule, "seed": trial.seed}


def _trials(params: Params) -> list[Trial]:
    key = stage_key("sweep", ignore=GRID_PARAMS)
    training_key = stage_key("sweep", ignore=(*GRID_PARAMS, *MEASURING_PARAMS))
    storage = params.ray.storage_path

    def trial(schedule: str, seed: int) -> Trial:
        changes = {"steps": params.sweep.steps, "mask_schedule": schedule}
        training = params.training.model_copy(update=changes)
        identity = {"schedule": schedule, "seed": seed}
        return Trial(
            schedule=schedule,
            seed=seed,
            iterations=sorted(params.sweep.iterations),
            folder=str(run_dir("sweep", key | identity, storage)),
            training_folder=str(run_dir("sweep/training", training_key | identity, storage)),
            params=params.model_copy(update={"training": training}).model_dump(),
            tokens_dir=str(TOKENS.absolute()),
            models_dir=str(CLASSIFIER.parent.absolute()),
        )

    return [trial(s, seed) for s in params.sweep.schedules for seed in params.sweep.seeds]


def _reference(params: Params) -> Path:
    """File with the features of the training images, which samples are compared with."""
    device = pick_device()
    classifier = load_model(CLASSIFIER, "classifier", device)
    evaluation = params.evaluation
    extractor = open_extractor(evaluation.extractor, classifier, evaluation, device)
    return reference_features(extractor, params)


def _log(trial: Trial, child: Run, params: Params) -> None:
    """A finished trial's curve, its metrics at step T, and its best T."""
    for row in trial.history():
        child.log_metrics({f"train/{k}": v for k, v in row.items() if k != "step"}, row["step"])
    rows = trial.rows()
    for row in rows:
        names = [k for k in row if k not in ("schedule", "seed", "iterations", "samples")]
        child.log_metrics({k: row[k] for k in names}, step=row["iterations"])
    fid = f"fid_{params.evaluation.extractor}"
    best = min(rows, key=lambda row: row[fid])
    child.log_metrics({"best_iterations": best["iterations"], f"best_{fid}": best[fid]})
    child.finish(ok=True)


if __name__ == "__main__":
    run_stage(main)
