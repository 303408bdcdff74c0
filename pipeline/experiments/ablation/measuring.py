"""A trial at work: train its model, decode it in every way that the grid asks for, and measure the
samples. Samples are not kept: each batch is turned into features where it is decoded."""

import time
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from pipeline.config.paths import TOKENIZER, TOKENS
from pipeline.data.seeds import mix
from pipeline.data.tokens import TokenCache
from pipeline.evaluation.evaluator import Evaluator
from pipeline.experiments.ablation.grid import Cell, Trial
from pipeline.experiments.rows import Row, measured_row
from pipeline.masking import masked_nll
from pipeline.runtime.batches import BatchWorkers, Maker, workers_of
from pipeline.runtime.files import read_json
from pipeline.runtime.storage import download, upload
from pipeline.runtime.trials import run_beside
from pipeline.sampling import Sampler, sample_batches
from pipeline.training.loop import run_training
from pipeline.weights.published import load_model
from pipeline.weights.released.checkpoint import open_pretrained_transformer


def run_trial(trial: Trial) -> None:
    """Train the trial's model, unless it is there or released weights take its place, and measure
    it."""
    trial.run.begin()
    if trial.training is not None and not trial.training.finished:
        run_training(replace(trial.training, log=trial.run))
    if trial.workers.under_ray_train:
        run_beside(measure_trial, trial, resources=trial.workers.resources)
    else:
        measure_trial(trial)


def measure_trial(trial: Trial) -> None:
    """Decode the samples of every cell that is missing from the trial's model, and measure them."""
    download(*trial.folders)
    params, workers = trial.params, decoders(trial)
    sampler = Maker(_open_sampler, trial)
    evaluator = Evaluator(params, workers, trial.root)
    shown = evaluator.on_the_fly(sampler)
    nll = masked_nll(
        sampler.open(workers.device).model,
        *TokenCache(trial.root / TOKENS, "val").everything(),
        schedule=trial.schedule,
        min_masking_rate=params.training.min_masking_rate,
        seed=trial.seed,
        device=workers.device,
    )
    labels = evaluator.labels(params.sweep.samples)
    size, seed = params.decoding.batch_size, mix(trial.seed, "sweep")
    for cell in trial.missing:
        name = " ".join(["sweep:", trial.name, *(f"{k}={v}" for k, v in cell.varied.items())])
        measure = partial(_measure, trial, cell, evaluator, labels, nll, time.monotonic())
        batches = sample_batches(cell.settings, labels, batch_size=size, seed=seed)
        measured_row(cell.path, workers, shown, batches, name, measure)
        upload(cell.path)


def decoders(trial: Trial) -> BatchWorkers:
    """The trial's workers but the one that measures, or this process where it is the only one."""
    count = max(1, trial.workers.count - 1)
    return workers_of(trial.params.ray.model_copy(update={"num_workers": count}))


def _measure(
    trial: Trial,
    cell: Cell,
    evaluator: Evaluator,
    labels: Tensor,
    nll: float,
    started: float,
    found: dict[str, Tensor],
) -> Row:
    """The metrics of a cell's samples, and the seconds since work on the cell started.

    Args:
        nll: of the trial's model.
        found: what the networks make of the samples.
    """
    decode_seconds, train_seconds = time.monotonic() - started, 0.0
    values = evaluator.sample_metrics(found, labels, trial.seed)
    if trial.training is not None:
        train_seconds = read_json(trial.training.trained, "seconds")["seconds"]
    own = {"schedule": trial.schedule, "seed": trial.seed} | cell.varied
    timing = own | {
        "train_seconds": train_seconds,
        "decode_seconds": round(decode_seconds, 2),
        "seconds": round(time.monotonic() - started, 2),
    }
    return {"row": own | {"samples": len(labels), "nll": nll} | values, "timing": timing}


def _open_sampler(trial: Trial, device: torch.device) -> Sampler:
    """The sampler of the trial's model, or of the released weights in its place."""
    download(*trial.folders)
    tokenizer = load_model(trial.root / TOKENIZER, "tokenizer", device)
    if trial.training is not None:
        return Sampler(load_model(trial.training.model, "transformer", device), tokenizer)
    classes = TokenCache(trial.root / TOKENS, "train").num_classes
    return Sampler(open_pretrained_transformer(trial.params, device, classes), tokenizer)
