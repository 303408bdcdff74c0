"""Measuring a trial: samples of its model at every T, and decoded with other schedules. Whoever
decodes a batch looks at it, and of the images only what the networks see is kept."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from pipeline.config.params import Params
from pipeline.config.paths import TOKENIZER, TOKENS
from pipeline.data.seeds import mix
from pipeline.data.tokens import TokenCache
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.seen import Row, Seen, keep_row
from pipeline.experiments.ablation.trial import Cell, Trial
from pipeline.masking import masked_nll
from pipeline.runtime.batches import Alone, Maker, make_tensors, workers_of
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json
from pipeline.runtime.storage import download, upload
from pipeline.sampling import Sampler, sample_batches
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import load_model
from pipeline.weights.released.checkpoint import open_pretrained_transformer


def measure_trial(trial: Trial) -> None:
    """Decode the samples of every cell that is missing from the trial's model, and measure them."""
    download(*trial.folders)
    params, root = Params.model_validate(trial.params), Path(trial.root)
    workers = _workers(trial, params)
    sampler = Maker(_open_sampler, trial, params)
    features = Path(trial.features)
    evaluator = Evaluator(params, workers, root, cache_dir=features)
    shown = evaluator.shown(sampler)
    cache = TokenCache(root / TOKENS, "val")
    cache.require(params.num_tokens, params.tokenizer.codebook_size)
    nll = masked_nll(
        sampler.open(workers.device).model,
        *cache.everything(),
        schedule=trial.schedule,
        min_masking_rate=params.training.min_masking_rate,
        seed=trial.seed,
        device=workers.device,
    )
    for cell in dict.fromkeys(trial.cells + trial.crossed):
        keep_row(cell.path, partial(_measure_cell, trial, cell, shown, evaluator, nll))
        upload(cell.path)


def _workers(trial: Trial, params: Params) -> Alone:
    """Who decodes: this process, or in the place of the trial's others, which have trained."""
    own = params.ray.model_copy(update={"num_workers": max(1, trial.workers.count - 1)})
    return workers_of(own)


def _measure_cell(
    trial: Trial, cell: Cell, shown: Maker, evaluator: Evaluator, nll: float, path: Path
) -> Row:
    """The metrics of a cell's samples, and the seconds that they took.

    Args:
        nll: of the trial's model.
        path: of what is seen in the samples.
    """
    started, params, workers = time.monotonic(), evaluator.params, evaluator.workers
    train_seconds = 0.0
    if trial.training is not None:
        train_seconds = read_json(trial.training.trained, "seconds")["seconds"]
    settings = params.decoding_settings(iterations=cell.iterations)
    labels = evaluator.labels(params.sweep.samples)
    batches = sample_batches(
        replace(settings, schedule=cell.schedule),
        labels,
        batch_size=params.decoding.batch_size,
        seed=mix(trial.seed, "sweep"),
    )
    name = f"sweep: {trial.name} T={cell.iterations}"
    seen = Seen.of(make_tensors(path, workers, shown, batches, name))
    decode_seconds = time.monotonic() - started
    values = evaluator.sampled(seen, labels, trial.seed)
    own = {"schedule": trial.schedule, "iterations": cell.iterations, "seed": trial.seed}
    row = own | {"samples": params.sweep.samples, "nll": nll} | values
    timing = own | {
        "train_seconds": train_seconds,
        "decode_seconds": round(decode_seconds, 2),
        "seconds": round(time.monotonic() - started, 2),
    }
    return {"row": row, "timing": timing}


def _open_sampler(trial: Trial, params: Params, device: torch.device) -> Sampler:
    """The sampler of the trial's model, or of the released weights in its place."""
    download(*trial.folders)
    if trial.training is None:
        model = _released(trial, params, device)
    else:
        model = load_model(trial.training.model, "transformer", device)
    return Sampler(model, load_model(Path(trial.root) / TOKENIZER, "tokenizer", device))


def _released(trial: Trial, params: Params, device: torch.device) -> MaskGitTransformer:
    model, classes = open_pretrained_transformer(params, device), trial.num_classes
    if model.config.num_classes != classes:
        raise UserError(
            f"transformer.pretrained: its model has {model.config.num_classes} classes and the "
            f"data set {classes}; measure it on the data set that it was trained on"
        )
    return model
