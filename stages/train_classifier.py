"""The reference classifier on real images."""

import torch

from pipeline.classifier import ClassifierConfig
from pipeline.data.shards import ImageBatches, ImageShards, View
from pipeline.layout import CLASSIFIER, IMAGES, RESULTS
from pipeline.models import save_model
from pipeline.params import Params
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import value_hash, write_csv, write_json
from pipeline.runtime.runs import run_dir, stage_key
from pipeline.runtime.stage import run_stage
from pipeline.runtime.tracking import stage_run
from pipeline.training.classifier import BATCH, LOGGED, ClassifierTask, accuracy
from pipeline.training.loop import RunDirSession, train


def main(params: Params) -> str:
    key = stage_key("train_classifier")
    with stage_run("train_classifier", params, value_hash(key)) as run:
        images, held_out = ImageShards(IMAGES, "train"), ImageShards(IMAGES, "val")
        validation = View(held_out, params.data, params.seed)
        config = ClassifierConfig(
            architecture=params.classifier.architecture,
            channels=params.data.channels,
            num_classes=len(images.class_names),
            width=params.classifier.width,
        )
        task = ClassifierTask(
            config,
            params.classifier,
            ImageBatches(images, params.data, params.classifier.batch_size, params.seed),
            validation.first(LOGGED),
            params.seed,
            pick_device(),
        )
        folder = run_dir("train_classifier", key, params.ray.storage_path)
        history = train(
            task,
            name="classifier",
            steps=params.classifier.steps,
            every=params.classifier.checkpoint_every,
            seed=params.seed,
            session=RunDirSession(folder, lambda row: run.log_metrics(row, row["step"])),
        )
        labels = torch.from_numpy(held_out.labels)
        top1, top5 = accuracy(task.model, validation.batches(BATCH), labels, pick_device())
        metrics = {"real_top1": top1, "real_top5": top5}
        save_model(CLASSIFIER, "classifier", config, task.model.state_dict())
        write_csv(RESULTS / "classifier/history.csv", history)
        write_json(RESULTS / "classifier/metrics.json", metrics)
        run.log_metrics(metrics)
    return f"train_classifier: {top1:.1%} of validation images right; model in {CLASSIFIER}"


if __name__ == "__main__":
    run_stage(main)
