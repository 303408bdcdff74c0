"""Measuring a trial: samples of its model at every T."""

import time
from pathlib import Path

import torch

from pipeline.config.params import Params
from pipeline.config.paths import TOKENIZER, TOKENS
from pipeline.data.tokens import TokenCache
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.images import make_images
from pipeline.evaluation.metrics import class_accuracy
from pipeline.experiments.ablation.trial import Trial
from pipeline.masking import masked_nll
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json, write_json
from pipeline.runtime.seeds import mix
from pipeline.sampling import balanced_labels, sample_images, sampler
from pipeline.tokenizer import Tokenizer
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import load_model
from pipeline.weights.released.opening import open_pretrained_transformer


def measure_trial(trial: Trial) -> None:
    """Decode samples from the trial's model at every T that is missing, and measure them."""
    params, root = Params.model_validate(trial.params), Path(trial.root)
    device = trial.device()
    if params.transformer.pretrained:
        model, train_seconds = _released(trial, params, device), 0.0
    else:
        model = load_model(trial.model, "transformer", device)
        train_seconds = read_json(trial.trained)["seconds"]
    tokenizer = load_model(root / TOKENIZER, "tokenizer", device)
    evaluator = Evaluator(params, device, root, keep=False)
    nll = masked_nll(
        model,
        *TokenCache(root / TOKENS, "val").everything(),
        schedule=trial.schedule,
        min_masking_rate=params.training.min_masking_rate,
        seed=trial.seed,
        device=device,
    )
    for iterations in trial.missing():
        started = time.monotonic()
        values, decode_seconds = _measure_cell(trial, iterations, model, tokenizer, evaluator)
        cell = {"schedule": trial.schedule, "iterations": iterations, "seed": trial.seed}
        row = cell | {"samples": params.sweep.samples, "nll": nll} | values
        timing = cell | {
            "train_seconds": train_seconds,
            "decode_seconds": round(decode_seconds, 2),
            "seconds": round(time.monotonic() - started, 2),
        }
        write_json(trial.cell(iterations), {"row": row, "timing": timing})
    print(f"sweep: {trial.name} done, T = {trial.iterations}", flush=True)


def _measure_cell(
    trial: Trial,
    iterations: int,
    model: MaskGitTransformer,
    tokenizer: Tokenizer,
    evaluator: Evaluator,
) -> tuple[dict[str, float | None], float]:
    """The metrics of samples that are decoded in `iterations` steps, and the seconds of
    decoding."""
    started, params = time.monotonic(), evaluator.params
    labels = balanced_labels(params.sweep.samples, model.config.num_classes)
    batches = sample_images(
        sampler(model, params.decoding_settings(iterations=iterations)),
        tokenizer,
        labels,
        batch_size=params.decoding.batch_size,
        seed=mix(trial.seed, "sweep"),
    )
    path = trial.cell(iterations).with_suffix(".npy")
    images = make_images(path, batches, f"sweep: {trial.name} T={iterations}")
    decode_seconds = time.monotonic() - started
    samples = evaluator.features(images)
    values = evaluator.sample_metrics(samples, trial.seed)
    same = evaluator.extractor.name == evaluator.judge.name
    logits = samples.class_logits if same else evaluator.recognised(images)
    path.unlink()
    return values | {"class_accuracy": class_accuracy(logits, labels)}, decode_seconds


def _released(trial: Trial, params: Params, device: torch.device) -> MaskGitTransformer:
    model, classes = open_pretrained_transformer(params, device), trial.num_classes
    if model.config.num_classes != classes:
        raise UserError(
            f"transformer.pretrained: its model has {model.config.num_classes} classes and the "
            f"data set {classes}; measure it on the data set that it was trained on"
        )
    return model
