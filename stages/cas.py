"""Classification Accuracy Scores: a classifier for each set of images, augmentation and seed."""

from pipeline.evaluation.cas import AUGMENTATIONS, REAL, CasJob, run_cas
from pipeline.layout import CLASSIFIER, IMAGES, RESULTS, SAMPLES
from pipeline.params import Params
from pipeline.runtime.files import value_hash, write_csv
from pipeline.runtime.runs import run_dir, stage_key
from pipeline.runtime.stage import run_stage
from pipeline.runtime.tasks import run_tasks
from pipeline.runtime.tracking import stage_run


def main(params: Params) -> str:
    key = stage_key("cas")
    own = params.model_copy(
        update={"classifier": params.classifier.model_copy(update={"steps": params.cas.steps})}
    )
    with stage_run("cas", params, value_hash(key)) as run:
        folder = run_dir("cas", key, params.ray.storage_path)
        jobs = [
            CasJob(
                images=images,
                augmentation=augmentation,
                seed=seed,
                params=own.model_dump(),
                folder=str(folder / images / augmentation / f"seed{seed}"),
                images_dir=str(IMAGES.absolute()),
                samples_dir=str(SAMPLES.absolute()),
                classifier_dir=str(CLASSIFIER.absolute()),
            )
            for images in (REAL, "transformer", "autoregressive")
            for augmentation in AUGMENTATIONS
            for seed in params.cas.seeds
        ]
        pending = [job for job in jobs if not job.result.exists()]
        print(f"cas: {len(jobs)} classifiers, {len(jobs) - len(pending)} finished before")
        run_tasks(run_cas, pending, params, on_done=lambda job: print(f"cas: {job.name} done"))
        rows = [job.row() for job in jobs]
        write_csv(RESULTS / "cas/rows.csv", rows)
        run.log_artifact(RESULTS / "cas/rows.csv")
        run.log_metrics(
            {f"cas/{r['images']}/{r['augmentation']}/seed{r['seed']}": r["top1"] for r in rows}
        )
    ours = [r["top1"] for r in rows if (r["images"], r["augmentation"]) == ("transformer", "none")]
    return f"cas: top-1 of samples {sum(ours) / len(ours):.1%}; in {RESULTS / 'cas'}"


if __name__ == "__main__":
    run_stage(main)
