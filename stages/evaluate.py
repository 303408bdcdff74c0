"""Draws samples from every trained MaskGIT and baseline, and measures the samples."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.config.replicates import LISTED, NETWORKS, replicates
from pipeline.evaluation.evaluator import Evaluator
from pipeline.experiments.evaluate.gallery import write_gallery
from pipeline.experiments.evaluate.measuring import (
    drop_samples,
    evaluate_all,
    mean_metrics,
    real_columns,
    real_rows,
)
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import write_csv, write_json
from pipeline.runtime.stage import Stage
from stages.running import replicate_folders

# Params that set the number of samples in other stages; here, sets of real images have that size.
SIZES = ("sweep.samples", "temperature.samples", "editing.images", "rejection.acceptance")


def main(params: Params) -> str:
    results = RESULTS / "evaluation"
    with Stage("evaluate", params) as stage:
        every = [r for network in NETWORKS for r in replicates(params, network)]
        models = (folder.as_posix() for folder in NETWORKS.values())
        images_folder = stage.folder(*LISTED, *SIZES, *models)
        folders = replicate_folders(stage, every, *SIZES)
        evaluator = Evaluator(params, workers_of(params.ray), second=True)
        rows = evaluate_all(params, folders, images_folder, evaluator)
        metrics = mean_metrics(rows, params)
        write_csv(results / "rows.csv", rows)
        real = real_rows(params, evaluator, images_folder)
        write_csv(results / "real.csv", real, columns=real_columns(params))
        write_json(results / "metrics.json", metrics)
        write_gallery(params, results, evaluator)
        if not params.evaluation.keep_samples:
            drop_samples(folders)
        for name, values in metrics.items():
            stage.run.log_group(name, values)
        stage.run.log_artifact(results / "rows.csv")
        stage.run.log_artifact(results / "samples.png")
    fid, ours = f"fid_{params.evaluation.extractor}", metrics["transformer"]
    recognised = f"{ours['class_accuracy']:.1%} of samples recognised"
    return f"evaluate: {recognised}, {fid} {ours[fid]:.2f}; in {results}"
