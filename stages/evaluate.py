"""Samples of both models, and everything that is measured on them."""

from pipeline.evaluation.evaluate import evaluate_all
from pipeline.evaluation.gallery import write_gallery
from pipeline.layout import RESULTS
from pipeline.params import Params
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import value_hash, write_json
from pipeline.runtime.runs import flatten, run_dir, stage_key
from pipeline.runtime.stage import run_stage
from pipeline.runtime.tracking import stage_run


def main(params: Params) -> str:
    key, device = stage_key("evaluate"), pick_device()
    with stage_run("evaluate", params, value_hash(key)) as run:
        folder = run_dir("evaluate", key, params.ray.storage_path)
        metrics = evaluate_all(params, folder, device)
        metrics["transformer"] |= write_gallery(params, RESULTS / "evaluation", device)
        write_json(RESULTS / "evaluation/metrics.json", metrics)
        run.log_metrics(flatten(metrics))
        run.log_artifact(RESULTS / "evaluation/samples.png")
    fid, ours = f"fid_{params.evaluation.extractor}", metrics["transformer"]
    return (
        f"evaluate: {ours['class_accuracy']:.1%} of samples recognised, {fid} {ours[fid]:.2f}; in "
        f"{RESULTS / 'evaluation'}"
    )


if __name__ == "__main__":
    run_stage(main)
