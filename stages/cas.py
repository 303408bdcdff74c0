"""Classification Accuracy Scores: a classifier for each set of images, augmentation and seed."""

from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES, RESULTS, SAMPLES
from pipeline.experiments.cas import AUGMENTATIONS, REAL, CasJob, run_cas
from pipeline.runtime.cluster import join_ray, require_resources
from pipeline.runtime.files import write_csv
from pipeline.runtime.stage import Stage
from pipeline.runtime.tasks import run_tasks
from stages.running import run_stage


def main(params: Params) -> str:
    stage = Stage("cas", params)
    jobs = _jobs(params, stage.folder("cas.seeds"))
    pending = [job for job in jobs if not job.result.exists()]
    ray = params.ray
    if pending:
        join_ray()
        require_resources(1, ray.cpus_per_worker, ray.use_gpu, "ray.cpus_per_worker")
    with stage:
        print(f"cas: {len(jobs)} classifiers, {len(jobs) - len(pending)} finished before")
        if pending:
            run_tasks(
                run_cas,
                pending,
                cpus=ray.cpus_per_worker,
                gpus=int(ray.use_gpu),
                max_retries=ray.max_failures,
                on_done=lambda job: print(f"cas: {job.name} done"),
            )
        rows = [job.row() for job in jobs]
        write_csv(RESULTS / "cas/rows.csv", rows)
        stage.run.log_artifact(RESULTS / "cas/rows.csv")
        stage.run.log_metrics(
            {f"cas/{r['images']}/{r['augmentation']}/seed{r['seed']}": r["top1"] for r in rows}
        )
    ours = [r["top1"] for r in rows if (r["images"], r["augmentation"]) == ("transformer", "none")]
    return f"cas: top-1 of samples {sum(ours) / len(ours):.1%}; in {RESULTS / 'cas'}"


def _jobs(params: Params, folder: Path) -> list[CasJob]:
    """A job for each set of images, augmentation and seed."""
    classifier = params.classifier.model_copy(update={"steps": params.cas.steps})
    own = params.model_copy(update={"classifier": classifier}).model_dump()
    return [
        CasJob(
            images=images,
            augmentation=augmentation,
            seed=seed,
            params=own,
            folder=str(folder / images / augmentation / f"seed{seed}"),
            images_dir=str(IMAGES.absolute()),
            samples_dir=str(SAMPLES.absolute()),
            classifier_dir=str(CLASSIFIER.absolute()),
        )
        for images in (REAL, "transformer", "autoregressive")
        for augmentation in AUGMENTATIONS
        for seed in params.cas.seeds
    ]


if __name__ == "__main__":
    run_stage(main)
