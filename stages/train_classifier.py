"""The reference classifier on real images."""

import torch

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES, RESULTS
from pipeline.data.images.batches import ImageBatches
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.views import View
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import write_csv, write_json
from pipeline.runtime.stage import Stage
from pipeline.training.classifier import BATCH, LOGGED, ClassifierTask, accuracy
from pipeline.training.loop import RunDirSession, train
from pipeline.weights.configs import classifier_config
from pipeline.weights.published import save_model
from stages.running import run_stage


def main(params: Params) -> str:
    with Stage("train_classifier", params) as stage:
        images, held_out = ImageShards(IMAGES, "train"), ImageShards(IMAGES, "val")
        validation = View(held_out, params.data, params.seed)
        config = classifier_config(params, len(images.class_names))
        task = ClassifierTask(
            config,
            params.classifier,
            ImageBatches(images, params.data, params.classifier.batch_size, params.seed),
            validation.first(LOGGED),
            params.seed,
            pick_device(),
        )
        history = train(
            task,
            name="classifier",
            steps=params.classifier.steps,
            every=params.classifier.checkpoint_every,
            seed=params.seed,
            session=RunDirSession(
                stage.folder(), lambda row: stage.run.log_metrics(row, int(row["step"]))
            ),
        )
        labels = torch.from_numpy(held_out.labels)
        top1, top5 = accuracy(task.model, validation.batches(BATCH), labels, task.device)
        metrics = {"real_top1": top1, "real_top5": top5}
        save_model(CLASSIFIER, "classifier", config, task.model.state_dict())
        write_csv(RESULTS / "classifier/history.csv", history)
        write_json(RESULTS / "classifier/metrics.json", metrics)
        stage.run.log_metrics(metrics)
    return f"train_classifier: {top1:.1%} of validation images right; model in {CLASSIFIER}"


if __name__ == "__main__":
    run_stage(main)
