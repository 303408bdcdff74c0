"""The ablation of Table 3 and Figure 8: one training per (schedule, seed), every T decoded from it.

A trial lives in folders of its own, keyed by what it depends on and not by the grid around it: its
training goes on from its last checkpoint, each T that was measured is a file that is whole, and a
larger grid runs only what is new. Other samples or metrics are measured without training again.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import UserError
from pipeline.evaluation.features import (
    ClassifierExtractor,
    extract,
    load_features,
    open_extractor,
)
from pipeline.evaluation.images import BATCH, ArrayImages
from pipeline.evaluation.metrics import class_accuracy, sample_metrics
from pipeline.evaluation.statistics import load_statistics
from pipeline.evaluation.writing import write_images
from pipeline.models import load_model, save_model
from pipeline.params import Params
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import read_json, write_json
from pipeline.sampling import balanced_labels, masked_nll, sample_images, sampler
from pipeline.seeds import mix
from pipeline.tokens import TokenCache
from pipeline.training.distributed import TrainingJob, fit
from pipeline.training.loop import RunDirSession, train
from pipeline.training.transformer import TransformerTask, open_pretrained, transformer_config
from pipeline.transformer import MaskGitTransformer

# Params that no single trial depends on, and those that its training does not.
GRID_PARAMS = ("sweep.schedules", "sweep.iterations", "sweep.seeds")
MEASURING_PARAMS = ("sweep.samples", "decoding", "evaluation")


@dataclass(frozen=True)
class Trial:
    """One (schedule, seed), as plain values that travel to a worker. Paths are absolute."""

    schedule: str
    seed: int
    iterations: list[int]
    folder: str  # of what is measured
    training_folder: str  # of its checkpoint and its finished model
    params: dict[str, Any]
    tokens_dir: str
    models_dir: str

    @property
    def name(self) -> str:
        return f"{self.schedule}/seed{self.seed}"

    def cell(self, iterations: int) -> Path:
        return Path(self.folder) / "cells" / f"T{iterations:04d}.json"

    @property
    def model(self) -> Path:
        """Its finished model."""
        return Path(self.training_folder) / "model"

    @property
    def trained(self) -> Path:
        """The history of the training that made it, and the seconds that took."""
        return Path(self.training_folder) / "training.json"

    @property
    def reason(self) -> Path:
        """Where a trial that failed leaves the one line that a user must read."""
        return Path(self.folder) / "error.txt"

    def missing(self) -> list[int]:
        """The T that are not measured yet."""
        return [t for t in self.iterations if not self.cell(t).exists()]

    def rows(self) -> list[dict[str, Any]]:
        """The measured row of every T, in order."""
        return [read_json(self.cell(t))["row"] for t in self.iterations]

    def timings(self) -> list[dict[str, Any]]:
        return [read_json(self.cell(t))["timing"] for t in self.iterations]

    def history(self) -> list[dict[str, float]]:
        """Of its training; empty where released weights took its place."""
        released = self.params["transformer"]["pretrained"]
        return [] if released else read_json(self.trained)["history"]


def measure_trial(trial: Trial, reference: Path) -> None:
    """Decode and measure every T that is missing, from the trial's model.

    Args:
        reference: file with the features of the real images that samples are compared with.
    """
    params = Params.model_validate(trial.params)
    device = _device(params)
    if params.transformer.pretrained:
        model, train_seconds = _released(trial, params, device), 0.0
    else:
        model = load_model(trial.model, "transformer", device)
        train_seconds = read_json(trial.trained)["seconds"]
    models = Path(trial.models_dir)
    tokenizer = load_model(models / "tokenizer", "tokenizer", device)
    classifier = load_model(models / "classifier", "classifier", device)
    evaluation = params.evaluation
    extractor = open_extractor(evaluation.extractor, classifier, evaluation, device)
    judge = ClassifierExtractor(classifier, device)
    real = load_features(reference)
    published = evaluation.reference_statistics
    statistics = load_statistics(published) if published else None
    nll = masked_nll(
        model,
        *TokenCache(trial.tokens_dir, "val").everything(),
        schedule=trial.schedule,
        min_masking_rate=params.training.min_masking_rate,
        seed=trial.seed,
        batch_size=500,
        device=device,
    )
    for iterations in trial.missing():
        started = time.monotonic()
        labels = balanced_labels(params.sweep.samples, model.config.num_classes)
        batches = sample_images(
            sampler(model, params, iterations=iterations),
            tokenizer,
            labels,
            batch_size=params.decoding.batch_size,
            seed=mix(trial.seed, "sweep"),
        )
        path, side = trial.cell(iterations).with_suffix(".npy"), params.data.image_size
        shape = (len(labels), params.data.channels, side, side)
        write_images(path, batches, shape, f"sweep: {trial.name} T={iterations}")
        decode_seconds = time.monotonic() - started
        images = ArrayImages(np.load(path, mmap_mode="r"))
        samples = extract(extractor, images.batches(BATCH))
        same = evaluation.extractor == judge.name
        recognised = samples if same else extract(judge, images.batches(BATCH))
        row = {"schedule": trial.schedule, "iterations": iterations, "seed": trial.seed}
        row |= {"samples": len(labels), "nll": nll}
        row |= sample_metrics(samples, real, extractor.name, evaluation, trial.seed, statistics)
        row["class_accuracy"] = class_accuracy(recognised.logits, labels)
        timing = {"schedule": trial.schedule, "iterations": iterations, "seed": trial.seed}
        timing |= {"train_seconds": train_seconds}
        timing |= {"decode_seconds": round(decode_seconds, 2)}
        timing |= {"seconds": round(time.monotonic() - started, 2)}
        write_json(trial.cell(iterations), {"row": row, "timing": timing})
        path.unlink()
    print(f"sweep: {trial.name} done, T = {trial.iterations}", flush=True)


def train_trial(trial: Trial) -> None:
    """Train (or take up) the trial's model: the averaged weights, kept beside the checkpoint."""
    params = Params.model_validate(trial.params)
    if params.transformer.pretrained or trial.model.exists():
        return
    started = time.monotonic()
    folder, num_classes = Path(trial.training_folder), _num_classes(trial)
    if params.sweep.workers_per_trial > 1:
        job = TrainingJob(
            params=trial.params,
            tokens_dir=trial.tokens_dir,
            num_classes=num_classes,
            network="transformer",
            schedule=trial.schedule,
            seed=trial.seed,
            name=trial.name,
            run_dir=str(folder / "train"),
        )
        state = fit(job, workers=params.sweep.workers_per_trial)
        history, weights = state["history"], state["task"]["ema"]
    else:
        task = TransformerTask(
            params,
            trial.tokens_dir,
            num_classes,
            schedule=trial.schedule,
            seed=trial.seed,
            device=_device(params),
        )
        history = train(
            task,
            name=trial.name,
            steps=params.training.steps,
            every=params.training.checkpoint_every,
            seed=trial.seed,
            session=RunDirSession(folder),
        )
        weights = task.ema.weights
    seconds = round(time.monotonic() - started, 2)
    write_json(trial.trained, {"history": history, "seconds": seconds})
    save_model(trial.model, "transformer", transformer_config(params, num_classes), weights)


def _released(trial: Trial, params: Params, device: torch.device) -> MaskGitTransformer:
    model, classes = open_pretrained(params, device), _num_classes(trial)
    if model.config.num_classes != classes:
        raise UserError(
            f"transformer.pretrained: its model has {model.config.num_classes} classes and the "
            f"data set {classes}; measure it on the data set that it was trained on"
        )
    return model


def _num_classes(trial: Trial) -> int:
    return int(TokenCache(trial.tokens_dir, "train").labels.max()) + 1


def _device(params: Params) -> torch.device:
    return pick_device() if params.ray.use_gpu else torch.device("cpu")
