"""Stage 7: samples of the main model, and everything that is measured on them."""

import time

from pipeline.evaluation.report import evaluate_model
from pipeline.layout import RESULTS
from pipeline.params import Params
from pipeline.runtime.files import value_hash, write_json
from pipeline.runtime.runs import run_dir, stage_key
from pipeline.runtime.stage import run_stage
from pipeline.runtime.tracking import stage_run


def main(params: Params) -> str:
    key = stage_key("evaluate")
    started = time.monotonic()
    with stage_run("evaluate", params, value_hash(key)) as run:
        folder = run_dir("evaluate", key, params.ray.storage_path)
        metrics = evaluate_model(params, folder, RESULTS / "evaluation")
        write_json(RESULTS / "evaluation/metrics.json", metrics)
        seconds = {"seconds": round(time.monotonic() - started, 2), "run_id": run.run_id}
        write_json(RESULTS / "evaluation_timings.json", seconds)
        run.log_metrics(metrics)
        run.log_artifact(RESULTS / "evaluation/samples.png")
    fid = f"fid_{params.evaluation.extractor}"
    return (
        f"evaluate: {metrics['class_accuracy']:.1%} of samples recognised, {fid} "
        f"{metrics[fid]:.2f}, CAS {metrics['cas_top1']:.1%}; in {RESULTS / 'evaluation'}"
    )


if __name__ == "__main__":
    run_stage(main)
