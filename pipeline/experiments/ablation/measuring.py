"""A trial at work: train its model, decode it in every way that the grid asks for, and measure the
samples. Samples are not kept: each batch is turned into features where it is decoded."""

import time

import torch
from torch import Tensor

from pipeline.config.paths import TOKENIZER, TOKENS
from pipeline.data.seeds import mix
from pipeline.data.tokens import TokenCache
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.seen import Seen
from pipeline.experiments.ablation.grid import Cell, Trial, axes
from pipeline.experiments.rows import Row, measured_row
from pipeline.masking import masked_nll
from pipeline.runtime.batches import Alone, Maker, workers_of
from pipeline.runtime.files import read_json
from pipeline.runtime.storage import download, upload
from pipeline.runtime.trials import run_beside
from pipeline.sampling import Sampler, sample_batches
from pipeline.training.transformer.model import train_model
from pipeline.weights.published import load_model
from pipeline.weights.released.opening import open_pretrained_transformer


def run_trial(trial: Trial) -> None:
    """Train the trial's model, unless it is there or released weights take its place, and measure
    it."""
    trial.run.begin()
    if trial.training is not None:
        train_model(trial.training, on_row=trial.run.log_training)
    if trial.workers.under_ray_train:
        run_beside(measure_trial, trial, resources=trial.workers.resources)
    else:
        measure_trial(trial)


def measure_trial(trial: Trial) -> None:
    """Decode the samples of every cell that is missing from the trial's model, and measure them."""
    download(*trial.folders)
    params, workers = trial.params, decoders(trial)
    sampler = Maker(_open_sampler, trial)
    evaluator = Evaluator(params, workers, trial.root, cache_dir=trial.features)
    shown = evaluator.shown(sampler)
    nll = masked_nll(
        sampler.open(workers.device).model,
        *TokenCache(trial.root / TOKENS, "val").everything(),
        schedule=trial.schedule,
        min_masking_rate=params.training.min_masking_rate,
        seed=trial.seed,
        device=workers.device,
    )
    for cell in trial.missing:
        measure_cell(trial, cell, shown, evaluator, nll)
        upload(cell.path)


def decoders(trial: Trial) -> Alone:
    """The trial's workers but the one that measures, or this process where it is the only one."""
    count = max(1, trial.workers.count - 1)
    return workers_of(trial.params.ray.model_copy(update={"num_workers": count}))


def measure_cell(trial: Trial, cell: Cell, shown: Maker, evaluator: Evaluator, nll: float) -> Row:
    """The metrics of a cell's samples, and the seconds that they took.

    Args:
        nll: of the trial's model.
    """
    started, params = time.monotonic(), trial.params
    varied = {name: getattr(cell.settings, name) for name in axes(params)}
    own = {"schedule": trial.schedule, "seed": trial.seed} | varied
    labels = evaluator.labels(params.sweep.samples)

    def measure(found: dict[str, Tensor]) -> Row:
        decode_seconds, train_seconds = time.monotonic() - started, 0.0
        values = evaluator.sampled(Seen.of(found), labels, trial.seed)
        if trial.training is not None:
            train_seconds = read_json(trial.training.trained, "seconds")["seconds"]
        timing = own | {
            "train_seconds": train_seconds,
            "decode_seconds": round(decode_seconds, 2),
            "seconds": round(time.monotonic() - started, 2),
        }
        return {"row": own | {"samples": len(labels), "nll": nll} | values, "timing": timing}

    batches = sample_batches(
        cell.settings,
        labels,
        batch_size=params.decoding.batch_size,
        seed=mix(trial.seed, "sweep"),
    )
    name = " ".join(["sweep:", trial.name, *(f"{k}={v}" for k, v in varied.items())])
    return measured_row(cell.path, evaluator.workers, shown, batches, name, measure)


def _open_sampler(trial: Trial, device: torch.device) -> Sampler:
    """The sampler of the trial's model, or of the released weights in its place."""
    download(*trial.folders)
    tokenizer = load_model(trial.root / TOKENIZER, "tokenizer", device)
    if trial.training is not None:
        return Sampler(load_model(trial.training.model, "transformer", device), tokenizer)
    classes = TokenCache(trial.root / TOKENS, "train").num_classes
    return Sampler(open_pretrained_transformer(trial.params, device, classes), tokenizer)
