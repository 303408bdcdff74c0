"""The VQGAN tokenizer, trained or taken from released weights."""

import torch

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES, RESULTS, TOKENIZER
from pipeline.data.images.batches import ImageBatches
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.views import View
from pipeline.evaluation.reconstruction import BATCH, Reconstruction
from pipeline.perceptual import open_perceptual
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import write_csv, write_json
from pipeline.runtime.pictures import grid_picture, save_picture
from pipeline.runtime.stage import Stage
from pipeline.tokenizer import Tokenizer
from pipeline.training.loop import RunDirSession, train
from pipeline.training.tokenizer import TokenizerTask
from pipeline.weights.configs import tokenizer_config
from pipeline.weights.published import load_model, save_model
from pipeline.weights.released.opening import open_pretrained_tokenizer
from stages.running import run_stage

PICTURED = 16
LOGGED = 256  # validation images behind each point of the curves


def main(params: Params) -> str:
    device, results = pick_device(), RESULTS / "tokenizer"
    pretrained = params.tokenizer.pretrained is not None
    released = open_pretrained_tokenizer(params, device) if pretrained else None
    with Stage("train_tokenizer", params) as stage:
        validation = View(ImageShards(IMAGES, "val"), params.data, params.seed)
        model, history = (released, []) if released else _train(params, validation, stage, device)
        reconstruction = Reconstruction(model, device)
        for images in validation.batches(BATCH):
            reconstruction(images)
        metrics = reconstruction.metrics()

        save_model(TOKENIZER, "tokenizer", model.config, model.state_dict())
        shown, _ = validation.first(PICTURED)
        pairs = torch.cat([shown, Reconstruction(model, device)(shown)])
        picture = grid_picture(pairs, columns=PICTURED)
        write_csv(results / "history.csv", history or [{"step": 0} | metrics])
        write_json(results / "metrics.json", metrics)
        stage.run.log_metrics(metrics)
        stage.run.log_artifact(save_picture(picture, results / "reconstructions.png"))
    return (
        f"train_tokenizer: PSNR {metrics['psnr']:.1f} dB, {metrics['code_usage']:.0%} of codes "
        f"used; model in {TOKENIZER}"
    )


def _train(
    params: Params, validation: View, stage: Stage, device: torch.device
) -> tuple[Tokenizer, list[dict[str, float]]]:
    """The trained tokenizer and the history of its training."""
    images = ImageShards(IMAGES, "train")
    config, classifier = tokenizer_config(params), load_model(CLASSIFIER, "classifier", device)
    task = TokenizerTask(
        config,
        params.tokenizer,
        open_perceptual(params.tokenizer.perceptual, classifier, device),
        ImageBatches(images, params.data, params.tokenizer.batch_size, params.seed),
        validation.first(LOGGED)[0],
        params.seed,
        device,
    )
    history = train(
        task,
        name="tokenizer",
        steps=params.tokenizer.steps,
        every=params.tokenizer.checkpoint_every,
        seed=params.seed,
        session=RunDirSession(
            stage.folder(), lambda row: stage.run.log_metrics(row, int(row["step"]))
        ),
    )
    return task.average.module, history


if __name__ == "__main__":
    run_stage(main)
