"""Trains and tests classifiers for the Classification Accuracy Score (CAS, Tables 1 and 5)."""

from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, SAMPLES
from pipeline.config.replicates import LISTED, NETWORKS, main_replicates
from pipeline.experiments.cas import AUGMENTATIONS, REAL, CasTraining, run_cas
from pipeline.runtime.files import read_json
from pipeline.runtime.stage import Stage
from pipeline.training.loop.run import run_jobs
from pipeline.training.loop.training import Workers
from stages.running import replicate_folders, write_rows


def main(params: Params) -> str:
    with Stage("cas", params) as stage:
        jobs = trainings(params, stage)
        run_jobs(run_cas, jobs, "cas.workers_per_classifier", stage, "classifiers")
        rows = [read_json(job.result) for job in jobs]
        return write_rows(stage, "cas/rows.csv", rows, "{images}/{augmentation}".format_map)


def trainings(params: Params, stage: Stage) -> list[CasTraining]:
    """The training runs: all combinations of seed, augmentation and images (real or sampled)."""
    classifier = params.classifier.model_copy(update={"steps": params.cas.steps})
    workers = params.cas.workers_per_classifier or params.ray.num_workers
    sets: list[tuple[str, int, Path, Path]] = [
        (REAL, seed, stage.folder(*LISTED, SAMPLES.as_posix(), seed=seed), IMAGES)
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
            workers=Workers.of(params.ray, workers),
            images=images,
            augmentation=augmentation,
            samples=samples,
        )
        for images, seed, folder, samples in sets
        for augmentation in AUGMENTATIONS
    ]
