"""Trains the reference classifier on real images, or loads released weights."""

import torch

from pipeline.classifier import Classifier, torchvision_classifier
from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES, RESULTS, TORCHVISION
from pipeline.data.images.shards import ImageShards
from pipeline.runtime.batches import workers_of
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_csv
from pipeline.runtime.project import of_project
from pipeline.runtime.stage import Stage
from pipeline.training.classifier import ClassifierTraining, held_out_accuracy, new_classifier
from pipeline.weights.configs import classifier_config
from pipeline.weights.published import save_model
from stages.running import train_one


def main(params: Params) -> str:
    workers, pretrained = workers_of(params.ray), params.classifier.pretrained
    classes = len(ImageShards(IMAGES, "val").class_names)
    released = _released(params, classes) if pretrained else None
    with Stage("train_classifier", params) as stage:
        model = released or _train(params, classes, stage)
        save_model(CLASSIFIER, "classifier", model.config, model.state_dict())
        batches = stage.folder() / "validation"
        top1, top5 = held_out_accuracy(CLASSIFIER, params, batches, workers)
        if released:
            curve = [{"step": 0, "loss": None, "val_accuracy": top1}]
            write_csv(RESULTS / "classifier/history.csv", curve)
        stage.run.log_group("classifier", {"real_top1": top1, "real_top5": top5})
    return f"train_classifier: {top1:.1%} validation accuracy (top-1); model in {CLASSIFIER}"


def _released(params: Params, classes: int) -> Classifier:
    """Load the network that `classifier.pretrained` names, and check its number of classes."""
    given = params.classifier.pretrained
    file = None if given in (None, TORCHVISION) else of_project(given)
    model = torchvision_classifier(params.classifier.architecture.partition(":")[2], file)
    if (known := model.config.num_classes) != classes:
        reason = f"the network has {known} classes, but the data set has {classes}"
        raise UserError("classifier.pretrained", reason, "set the param to null or to another file")
    return model


def _train(params: Params, classes: int, stage: Stage) -> Classifier:
    state = train_one(ClassifierTraining, "classifier", params, stage)
    model = new_classifier(classifier_config(params, classes), torch.device("cpu"))
    model.load_state_dict(state["task"]["model"])
    return model
