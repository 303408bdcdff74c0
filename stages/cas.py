"""Classification Accuracy Scores: a classifier for each set of images, augmentation and seed."""

from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES, RESULTS, SAMPLES
from pipeline.config.replicates import NETWORKS, main_replicates
from pipeline.config.trainings import named_by, workers_per_classifier
from pipeline.experiments.cas import AUGMENTATIONS, REAL, CasJob, run_cas
from pipeline.runtime.files import write_csv, write_json
from pipeline.runtime.progress import Countdown
from pipeline.runtime.ray_cluster import join_ray, require_resources
from pipeline.runtime.stage import Stage
from pipeline.runtime.trials import run_trials
from pipeline.training.loop import Workers
from stages.running import REPLICATES, run_stage, samples_folders

KEYS = ("images", "augmentation", "seed", "training_images")


def main(params: Params) -> str:
    stage = Stage("cas", params)
    jobs = _jobs(params, stage)
    pending = [job for job in jobs if not job.finished]
    workers = Workers.of(params.ray, workers_per_classifier(params))
    if pending:
        join_ray()
        several = named_by(params, "cas.workers_per_classifier")
        key = several if workers.count > 1 else "ray.cpus_per_worker"
        require_resources(workers.count, workers.cpus, workers.use_gpu, key)
    with stage:
        count = Countdown("cas", "classifiers", len(jobs), len(pending))

        def keep(job: CasJob, row: dict[str, Any]) -> None:
            write_json(job.result, row)
            count.done(job.name)

        if pending:
            needs = workers.needs(stage.folder())
            run_trials(run_cas, pending, needs, stage="cas", on_done=keep)
        rows = [job.row() for job in jobs]
        write_csv(RESULTS / "cas/rows.csv", rows)
        stage.run.log_artifact(RESULTS / "cas/rows.csv")
        stage.run.log_means(rows, lambda row: f"{row['images']}/{row['augmentation']}", KEYS)
    ours = [r["top1"] for r in rows if (r["images"], r["augmentation"]) == ("transformer", "none")]
    return f"cas: top-1 of samples {sum(ours) / len(ours):.1%}; in {RESULTS / 'cas'}"


def _jobs(params: Params, stage: Stage) -> list[CasJob]:
    """A job for each set of images, augmentation and replicate; the real images' have its seed."""
    classifier = params.classifier.model_copy(update={"steps": params.cas.steps})
    own = params.model_copy(update={"classifier": classifier}).model_dump()
    sets: list[tuple[str, int, Path, Path]] = [
        (REAL, seed, stage.folder(*REPLICATES, SAMPLES.as_posix(), seed=seed), IMAGES)
        for seed in params.evaluation.seeds
    ]
    for network in NETWORKS:
        folders = samples_folders(stage, main_replicates(params, network))
        sets += [(network, r.seed, folder, r.samples) for r, folder in folders.items()]
    return [
        CasJob(
            images=images,
            augmentation=augmentation,
            seed=seed,
            params=own,
            folder=str(folder / augmentation),
            images_dir=str(IMAGES.absolute()),
            samples_dir=str(samples.absolute()),
            classifier_dir=str(CLASSIFIER.absolute()),
        )
        for images, seed, folder, samples in sets
        for augmentation in AUGMENTATIONS
    ]


if __name__ == "__main__":
    run_stage(main)
