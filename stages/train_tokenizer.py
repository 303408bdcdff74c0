"""Stage 3: the VQGAN tokenizer."""

import torch

from pipeline.data.shards import ImageBatches, ImageShards, View
from pipeline.evaluation.features import extract, open_extractor
from pipeline.evaluation.metrics import fid
from pipeline.layout import CLASSIFIER, IMAGES, RESULTS, TOKENIZER
from pipeline.models import load_model, save_model
from pipeline.params import Params
from pipeline.pictures import grid_picture, save_picture
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import value_hash, write_csv, write_json
from pipeline.runtime.runs import run_dir, stage_key
from pipeline.runtime.stage import run_stage
from pipeline.runtime.tracking import stage_run
from pipeline.tokenizer import TokenizerConfig
from pipeline.training.loop import RunDirSession, train
from pipeline.training.tokenizer import TokenizerTask, reconstruct

PICTURED = 16
LOGGED = 256  # validation images behind each point of the curves


def main(params: Params) -> str:
    key = stage_key("train_tokenizer")
    device = pick_device()
    with stage_run("train_tokenizer", params, value_hash(key)) as run:
        classifier = load_model(CLASSIFIER, "classifier", device)
        validation, _ = View(ImageShards(IMAGES, "val"), params.data, params.seed).everything()
        config = TokenizerConfig(
            channels=params.data.channels,
            filters=params.tokenizer.filters,
            multipliers=tuple(params.tokenizer.multipliers),
            res_blocks=params.tokenizer.res_blocks,
            embedding_dim=params.tokenizer.embedding_dim,
            codebook_size=params.tokenizer.codebook_size,
        )
        images = ImageShards(IMAGES, "train")
        task = TokenizerTask(
            config,
            params.tokenizer,
            classifier,
            ImageBatches(images, params.data, params.tokenizer.batch_size, params.seed),
            validation[:LOGGED],
            params.seed,
            device,
        )
        folder = run_dir("train_tokenizer", key, params.ray.storage_path)
        history = train(
            task,
            name="tokenizer",
            steps=params.tokenizer.steps,
            every=params.tokenizer.checkpoint_every,
            seed=params.seed,
            session=RunDirSession(folder, lambda row: run.log_metrics(row, row["step"])),
        )
        model = task.published()
        reconstruction, metrics = reconstruct(model, validation, device)
        extractor = open_extractor(
            params.evaluation.extractor, classifier, params.evaluation.inception_weights, device
        )
        real, rebuilt = (
            extract(extractor, batch.split(250)) for batch in (validation, reconstruction)
        )
        metrics[f"rfid_{extractor.name}"] = fid(rebuilt.features, real.features)

        save_model(TOKENIZER, "tokenizer", config, model.state_dict())
        pairs = torch.cat([validation[:PICTURED], reconstruction[:PICTURED]])
        picture = save_picture(
            grid_picture(pairs, columns=PICTURED), RESULTS / "tokenizer/reconstructions.png"
        )
        write_csv(RESULTS / "tokenizer/history.csv", history)
        write_json(RESULTS / "tokenizer/metrics.json", metrics)
        run.log_metrics(metrics)
        run.log_artifact(picture)
    return (
        f"train_tokenizer: PSNR {metrics['psnr']:.1f} dB, {metrics['code_usage']:.0%} of codes "
        f"used; model in {TOKENIZER}"
    )


if __name__ == "__main__":
    run_stage(main)
