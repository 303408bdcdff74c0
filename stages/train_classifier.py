"""The reference classifier on real images."""

import torch

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES, RESULTS
from pipeline.data.images.shards import ImageShards
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import write_json
from pipeline.runtime.stage import Stage
from pipeline.training.classifier import ClassifierTraining, held_out_accuracy, new_classifier
from pipeline.weights.configs import classifier_config
from pipeline.weights.published import save_model
from stages.running import train_one


def main(params: Params) -> str:
    workers = workers_of(params.ray)
    with Stage("train_classifier", params) as stage:
        state = train_one(ClassifierTraining, "classifier", params, stage)
        config = classifier_config(params, len(ImageShards(IMAGES, "val").class_names))
        model = new_classifier(config, torch.device("cpu"))
        model.load_state_dict(state["task"]["model"])
        save_model(CLASSIFIER, "classifier", config, model.state_dict())
        batches = stage.folder() / "validation"
        top1, top5 = held_out_accuracy(CLASSIFIER, params, batches, workers)
        metrics = {"real_top1": top1, "real_top5": top5}
        write_json(RESULTS / "classifier/metrics.json", metrics)
        stage.run.log_group("classifier", metrics)
    return f"train_classifier: {top1:.1%} of validation images right; model in {CLASSIFIER}"
