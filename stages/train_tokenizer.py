"""Trains the VQGAN tokenizer, or converts released weights."""

import torch

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, RESULTS, TOKENIZER
from pipeline.data.images.pixels import grid_picture, save_picture
from pipeline.data.images.shards import ImageShards, View
from pipeline.evaluation.reconstruction import held_out_quality, rebuild
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import write_csv, write_json
from pipeline.runtime.stage import Stage
from pipeline.tokenizer import Tokenizer
from pipeline.training.loop.average import averaged_weights
from pipeline.training.tokenizer import TokenizerTraining
from pipeline.weights.configs import tokenizer_config
from pipeline.weights.published import save_model
from pipeline.weights.released.checkpoint import open_pretrained_tokenizer
from stages.running import train_one

PICTURED = 16


def main(params: Params) -> str:
    results, workers = RESULTS / "tokenizer", workers_of(params.ray)
    released = params.tokenizer.pretrained is not None
    with Stage("train_tokenizer", params) as stage:
        if released:
            model = open_pretrained_tokenizer(params, torch.device("cpu"))
        else:
            state = train_one(TokenizerTraining, "tokenizer", params, stage)
            model = Tokenizer(tokenizer_config(params)).eval().requires_grad_(False)
            model.load_state_dict(averaged_weights(state["task"]["average"]))
        save_model(TOKENIZER, "tokenizer", model.config, model.state_dict())
        metrics = held_out_quality(TOKENIZER, params, stage.folder() / "validation", workers)
        held_out = ImageShards(IMAGES, "val")
        shown = View(held_out, params.data).centers(range(len(held_out))[:PICTURED])
        pairs = torch.cat([shown, rebuild(model.to(workers.device), shown, workers.device)[0]])
        picture = grid_picture(pairs, columns=PICTURED)
        if released:
            write_csv(results / "history.csv", [{"step": 0} | metrics])
        write_json(results / "metrics.json", metrics)
        stage.run.log_group("tokenizer", metrics)
        stage.run.log_artifact(save_picture(picture, results / "reconstructions.png"))
    return f"train_tokenizer: PSNR {metrics['psnr']:.1f} dB; model in {TOKENIZER}"
