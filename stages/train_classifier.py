"""The reference classifier on real images."""

import torch

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES, RESULTS
from pipeline.data.images.shards import ImageShards
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import write_csv, write_json
from pipeline.runtime.stage import Stage
from pipeline.training.classifier import ClassifierTraining, held_out_accuracy, new_classifier
from pipeline.training.loop import Workers, require_workers, run_training
from pipeline.weights.configs import classifier_config
from pipeline.weights.published import save_model
from stages.running import run_stage


def main(params: Params) -> str:
    workers, own = workers_of(params.ray), Workers.of(params.ray, params.ray.num_workers)
    require_workers(own, "ray.num_workers")
    with Stage("train_classifier", params) as stage:
        training = ClassifierTraining(
            name="classifier",
            params=params,
            seed=params.seed,
            folder=stage.folder(),
            workers=own,
            log=stage.run,
        )
        state, held_out = run_training(training), ImageShards(IMAGES, "val")
        for row in state["history"]:  # another machine may have made some
            stage.run.log_training(row)
        config = classifier_config(params, len(held_out.class_names))
        model = new_classifier(config, torch.device("cpu"))
        model.load_state_dict(state["task"]["model"])
        save_model(CLASSIFIER, "classifier", config, model.state_dict())
        parts = stage.folder() / "validation"
        top1, top5 = held_out_accuracy(CLASSIFIER, params, parts, workers)
        metrics = {"real_top1": top1, "real_top5": top5}
        write_csv(RESULTS / "classifier/history.csv", state["history"])
        write_json(RESULTS / "classifier/metrics.json", metrics)
        stage.run.log_group("classifier", metrics)
    return f"train_classifier: {top1:.1%} of validation images right; model in {CLASSIFIER}"


if __name__ == "__main__":
    run_stage(main)
