"""Classification Accuracy Scores: a classifier for each set of images, augmentation and seed."""

from pathlib import Path

from pipeline.evaluation.cas import AUGMENTATIONS, REAL, CasJob, run_cas
from pipeline.layout import CLASSIFIER, IMAGES, RESULTS, SAMPLES
from pipeline.params import Params
from pipeline.runtime.cluster import join_ray, require_resources
from pipeline.runtime.files import value_hash, write_csv
from pipeline.runtime.runs import run_dir, stage_key
from pipeline.runtime.stage import run_stage
from pipeline.runtime.tasks import run_tasks
from pipeline.runtime.tracking import stage_run


def main(params: Params) -> str:
    key = stage_key("cas")
    jobs = _jobs(params, run_dir("cas", key, params.ray.storage_path))
    pending = [job for job in jobs if not job.result.exists()]
    if pending:
        join_ray()
        ray = params.ray
        require_resources(1, ray.cpus_per_worker, ray.use_gpu, "ray.cpus_per_worker")
    with stage_run("cas", params, value_hash(key)) as run:
        print(f"cas: {len(jobs)} classifiers, {len(jobs) - len(pending)} finished before")
        if pending:
            run_tasks(run_cas, pending, params, on_done=lambda job: print(f"cas: {job.name} done"))
        rows = [job.row() for job in jobs]
        write_csv(RESULTS / "cas/rows.csv", rows)
        run.log_artifact(RESULTS / "cas/rows.csv")
        run.log_metrics(
            {f"cas/{r['images']}/{r['augmentation']}/seed{r['seed']}": r["top1"] for r in rows}
        )
    ours = [r["top1"] for r in rows if (r["images"], r["augmentation"]) == ("transformer", "none")]
    return f"cas: top-1 of samples {sum(ours) / len(ours):.1%}; in {RESULTS / 'cas'}"


def _jobs(params: Params, folder: Path) -> list[CasJob]:
    """One for each set of images, augmentation and seed."""
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
