"""The reference classifier on real images."""

import torch

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES, RESULTS
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.views import View
from pipeline.runtime.device import driver_device
from pipeline.runtime.files import write_csv, write_json
from pipeline.runtime.stage import Stage
from pipeline.training.classifier import BATCH, ClassifierRecipe, accuracy, new_classifier
from pipeline.training.loop import TrainingJob, Workers, require_workers, run_training
from pipeline.weights.configs import classifier_config
from pipeline.weights.published import save_model
from stages.running import run_stage


def main(params: Params) -> str:
    workers = Workers.of(params.ray, params.ray.num_workers)
    device = driver_device(workers.use_gpu, workers.count)
    require_workers(workers, "ray.num_workers")
    with Stage("train_classifier", params) as stage:
        job = TrainingJob(
            name="classifier",
            recipe=ClassifierRecipe(params.model_dump(), str(IMAGES.absolute())),
            steps=params.classifier.steps,
            every=params.classifier.checkpoint_every,
            seed=params.seed,
            folder=str(stage.folder()),
            workers=workers,
        )
        state, held_out = run_training(job, stage.run.log_training), ImageShards(IMAGES, "val")
        for row in state["history"]:  # another machine may have made some
            stage.run.log_training(row)
        config = classifier_config(params, len(held_out.class_names))
        model = new_classifier(config, device)
        model.load_state_dict(state["task"]["model"])

        validation = View(held_out, params.data, params.seed)
        labels = torch.from_numpy(held_out.labels)
        top1, top5 = accuracy(model, validation.batches(BATCH), labels, device)
        metrics = {"real_top1": top1, "real_top5": top5}
        save_model(CLASSIFIER, "classifier", config, model.state_dict())
        write_csv(RESULTS / "classifier/history.csv", state["history"])
        write_json(RESULTS / "classifier/metrics.json", metrics)
        stage.run.log_group("classifier", metrics)
    return f"train_classifier: {top1:.1%} of validation images right; model in {CLASSIFIER}"


if __name__ == "__main__":
    run_stage(main)
