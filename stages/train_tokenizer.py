"""The VQGAN tokenizer, trained or taken from released weights."""

import torch

from pipeline.classifier import Classifier
from pipeline.data.shards import ImageBatches, ImageShards, View
from pipeline.evaluation.features import extract, open_extractor
from pipeline.evaluation.metrics import fid, unless_few
from pipeline.layout import CLASSIFIER, IMAGES, RESULTS, TOKENIZER
from pipeline.models import load_model, save_model
from pipeline.params import Params
from pipeline.perceptual import open_perceptual
from pipeline.pictures import grid_picture, save_picture
from pipeline.released import load_pretrained
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import value_hash, write_csv, write_json
from pipeline.runtime.runs import run_dir, stage_key
from pipeline.runtime.stage import run_stage
from pipeline.runtime.tracking import stage_run
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.training.loop import RunDirSession, train
from pipeline.training.tokenizer import BATCH, Reconstruction, TokenizerTask, tokenizer_config

PICTURED = 16
LOGGED = 256  # validation images behind each point of the curves


def main(params: Params) -> str:
    pretrained, config = params.tokenizer.pretrained, tokenizer_config(params)
    weights = load_pretrained(pretrained, config) if pretrained else None
    key = stage_key("train_tokenizer")
    device = pick_device()
    with stage_run("train_tokenizer", params, value_hash(key)) as run:
        classifier = load_model(CLASSIFIER, "classifier", device)
        validation = View(ImageShards(IMAGES, "val"), params.data, params.seed)
        history = []
        if weights is None:
            task = _task(config, params, classifier, validation, device)
            # What measures the result does not matter to the training.
            own = stage_key("train_tokenizer", ignore=["evaluation"])
            folder = run_dir("train_tokenizer", own, params.ray.storage_path)
            history = train(
                task,
                name="tokenizer",
                steps=params.tokenizer.steps,
                every=params.tokenizer.checkpoint_every,
                seed=params.seed,
                session=RunDirSession(folder, lambda row: run.log_metrics(row, row["step"])),
            )
            weights = task.ema.weights
        model = Tokenizer(config).to(device).eval().requires_grad_(False)
        model.load_state_dict(weights)
        metrics = _measure(model, validation, params, classifier, device)

        save_model(TOKENIZER, "tokenizer", config, model.state_dict())
        shown, _ = validation.first(PICTURED)
        pairs = torch.cat([shown, Reconstruction(model, device)(shown)])
        picture = save_picture(
            grid_picture(pairs, columns=PICTURED), RESULTS / "tokenizer/reconstructions.png"
        )
        write_csv(RESULTS / "tokenizer/history.csv", history or [{"step": 0} | metrics])
        write_json(RESULTS / "tokenizer/metrics.json", metrics)
        run.log_metrics(metrics)
        run.log_artifact(picture)
    return (
        f"train_tokenizer: PSNR {metrics['psnr']:.1f} dB, {metrics['code_usage']:.0%} of codes "
        f"used; model in {TOKENIZER}"
    )


def _task(
    config: TokenizerConfig, params: Params, classifier: Classifier, validation: View, device
) -> TokenizerTask:
    images = ImageShards(IMAGES, "train")
    return TokenizerTask(
        config,
        params.tokenizer,
        open_perceptual(params.tokenizer.perceptual, classifier, device),
        ImageBatches(images, params.data, params.tokenizer.batch_size, params.seed),
        validation.first(LOGGED)[0],
        params.seed,
        device,
    )


def _measure(
    model: Tokenizer, validation: View, params: Params, classifier: Classifier, device
) -> dict[str, float | None]:
    """PSNR, code usage and rFID of the reconstructed validation images."""
    extractor = open_extractor(params.evaluation.extractor, classifier, params.evaluation, device)
    reconstruction = Reconstruction(model, device)
    real = extract(extractor, validation.batches(BATCH))
    rebuilt = extract(extractor, map(reconstruction, validation.batches(BATCH)))
    rfid = None
    with unless_few():
        rfid = fid(rebuilt.features, real.features)
    return reconstruction.metrics() | {f"rfid_{extractor.name}": rfid}


if __name__ == "__main__":
    run_stage(main)
