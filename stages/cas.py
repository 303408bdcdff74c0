"""Classification Accuracy Scores: a classifier for each set of images, augmentation and seed."""

from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, RESULTS, SAMPLES
from pipeline.config.replicates import NETWORKS, main_replicates
from pipeline.config.trainings import named_by, workers_per_classifier
from pipeline.experiments.cas import AUGMENTATIONS, REAL, CasTraining, run_cas
from pipeline.runtime.files import read_json, write_json
from pipeline.runtime.stage import Stage
from pipeline.training.loop import Workers
from stages.running import (
    REPLICATES,
    replicate_folders,
    require_room,
    run_jobs,
    run_stage,
    write_rows,
)

KEYS = ("images", "augmentation", "seed", "training_images")


def main(params: Params) -> str:
    stage = Stage("cas", params)
    jobs = _trainings(params, stage)
    workers = jobs[0].workers
    require_room(jobs, workers, named_by(params, "cas.workers_per_classifier"))
    with stage:
        run_jobs(run_cas, jobs, workers, stage, "classifiers", lambda j, r: write_json(j.result, r))
        rows = [read_json(job.result) for job in jobs]
        write_rows(
            stage, "cas/rows.csv", rows, KEYS, lambda row: f"{row['images']}/{row['augmentation']}"
        )
    return f"cas: {len(rows)} rows in {RESULTS / 'cas'}"


def _trainings(params: Params, stage: Stage) -> list[CasTraining]:
    """A training for each set of images, augmentation and replicate; of the real images with its
    seed."""
    classifier = params.classifier.model_copy(update={"steps": params.cas.steps})
    sets: list[tuple[str, int, Path, Path]] = [
        (REAL, seed, stage.folder(*REPLICATES, SAMPLES.as_posix(), seed=seed), IMAGES)
        for seed in params.evaluation.seeds
    ]
    for network in NETWORKS:
        folders = replicate_folders(stage, main_replicates(params, network), samples=True)
        sets += [(network, r.seed, folder, r.samples) for r, folder in folders.items()]
    return [
        CasTraining(
            name=f"{images}/{augmentation}/seed{seed}",
            params=params.model_copy(update={"classifier": classifier}),
            seed=seed,
            folder=folder / augmentation,
            workers=Workers.of(params.ray, workers_per_classifier(params)),
            images=images,
            augmentation=augmentation,
            images_dir=IMAGES.absolute(),
            samples_dir=samples.absolute(),
        )
        for images, seed, folder, samples in sets
        for augmentation in AUGMENTATIONS
    ]


if __name__ == "__main__":
    run_stage(main)
