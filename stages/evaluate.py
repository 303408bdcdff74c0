"""Samples of both models, and everything that is measured on them."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.experiments.evaluate.gallery import write_gallery
from pipeline.experiments.evaluate.measuring import evaluate_all
from pipeline.runtime.dag import flatten
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import write_json
from pipeline.runtime.stage import Stage
from stages.running import main_schedule, run_stage


def main(params: Params) -> str:
    device = pick_device()
    with Stage("evaluate", params) as stage:
        metrics = evaluate_all(params, stage.folder(), device)
        metrics["transformer"] |= write_gallery(params, RESULTS / "evaluation", device)
        write_json(RESULTS / "evaluation/metrics.json", metrics)
        stage.run.log_metrics(flatten(metrics))
        stage.run.log_artifact(RESULTS / "evaluation/samples.png")
    fid, ours = f"fid_{params.evaluation.extractor}", metrics["transformer"]
    return (
        f"evaluate: {ours['class_accuracy']:.1%} of samples recognised, {fid} {ours[fid]:.2f}; in "
        f"{RESULTS / 'evaluation'}"
    )


if __name__ == "__main__":
    run_stage(main, curves=main_schedule)
