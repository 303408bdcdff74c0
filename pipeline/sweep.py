"""The ablation of Table 3 and Figure 8: one training per (schedule, seed), every T decoded from it.

A trial lives in a folder of its own, keyed by what it depends on and not by the grid around it:
its training goes on from its last checkpoint, each T that was measured is a file that is whole, and
a larger grid runs only what is new.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.evaluation.features import extract, load_features, open_extractor
from pipeline.evaluation.metrics import class_accuracy, sample_metrics
from pipeline.models import load_model
from pipeline.params import Params
from pipeline.runtime.files import read_json, write_json
from pipeline.sampling import balanced_labels, masked_nll, sample_images, sampler
from pipeline.seeds import mix
from pipeline.tokens import TokenCache
from pipeline.training.distributed import TrainingJob, fit
from pipeline.training.loop import RunDirSession, train
from pipeline.training.transformer import TransformerTask, open_pretrained, transformer_config
from pipeline.transformer import MaskGitTransformer

# Params of the grid: no single trial depends on them.
GRID_PARAMS = ("sweep.schedules", "sweep.iterations", "sweep.seeds")


@dataclass(frozen=True)
class Trial:
    """One (schedule, seed), as plain values that travel to a worker. Paths are absolute."""

    schedule: str
    seed: int
    iterations: list[int]
    folder: str
    params: dict[str, Any]
    tokens_dir: str
    models_dir: str
    reference: str  # features of the reference images

    @property
    def name(self) -> str:
        return f"{self.schedule}/seed{self.seed}"

    def cell(self, iterations: int) -> Path:
        return Path(self.folder) / "cells" / f"T{iterations:04d}.json"

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
        return read_json(Path(self.folder) / "history.json")


def run_trial(trial: Trial) -> None:
    """Train (or take up) the trial's model, then measure every T that is missing."""
    params = Params.model_validate(trial.params)
    device = torch.device("cuda" if params.ray.use_gpu and torch.cuda.is_available() else "cpu")
    started = time.monotonic()
    model = _trained(trial, params, device)
    train_seconds = time.monotonic() - started

    models = Path(trial.models_dir)
    tokenizer = load_model(models / "tokenizer", "tokenizer", device)
    classifier = load_model(models / "classifier", "classifier", device)
    evaluation = params.evaluation
    extractor = open_extractor(
        evaluation.extractor, classifier, evaluation.inception_weights, device
    )
    judge = open_extractor("classifier", classifier, None, device)
    reference = load_features(Path(trial.reference))
    tokens, labels = TokenCache(trial.tokens_dir, "val").everything()
    nll = masked_nll(
        model,
        tokens,
        labels,
        schedule=trial.schedule,
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
        images = list(batches)
        decode_seconds = time.monotonic() - started
        samples = extract(extractor, images)
        recognised = samples if evaluation.extractor == judge.name else extract(judge, images)
        row = {"schedule": trial.schedule, "iterations": iterations, "seed": trial.seed}
        row |= {"samples": len(labels), "nll": nll}
        row |= sample_metrics(samples, reference, extractor.name, evaluation, trial.seed)
        row["class_accuracy"] = class_accuracy(recognised.logits, labels)
        timing = {"schedule": trial.schedule, "iterations": iterations, "seed": trial.seed}
        timing |= {"train_seconds": round(train_seconds, 2)}
        timing |= {"decode_seconds": round(decode_seconds, 2)}
        timing |= {"seconds": round(time.monotonic() - started, 2)}
        write_json(trial.cell(iterations), {"row": row, "timing": timing})
    print(f"sweep: {trial.name} done, T = {trial.iterations}", flush=True)


def _trained(trial: Trial, params: Params, device: torch.device) -> MaskGitTransformer:
    """The trial's averaged model; the released one, where there is one to take."""
    folder = Path(trial.folder)
    if params.transformer.pretrained:
        write_json(folder / "history.json", [])
        return open_pretrained(params, device)
    train_tokens = TokenCache(trial.tokens_dir, "train")
    num_classes = int(train_tokens.labels.max()) + 1
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
            device=device,
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
    write_json(folder / "history.json", history)
    model = MaskGitTransformer(transformer_config(params, num_classes)).to(device)
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)
