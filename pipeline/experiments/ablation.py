"""The ablation of Table 3 and Figure 8: one training per (schedule, seed), every T decoded from it.

A trial has its own folders, whose names are hashes of what it depends on; the grid around it is no
part of that. A trial that was killed therefore trains on from its last checkpoint and measures only
the T without a file, a larger grid runs only what is new, and other samples or metrics are measured
without training again.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.config.params import Params
from pipeline.config.paths import CURVES, TOKENIZER, TOKENS
from pipeline.data.tokens import TokenCache
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.metrics import class_accuracy
from pipeline.evaluation.writing import write_images
from pipeline.masking import masked_nll
from pipeline.runtime.dag import stage_key
from pipeline.runtime.device import pick_device
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import Failure
from pipeline.runtime.files import read_json, tree_hash, write_json
from pipeline.runtime.runs import run_dir
from pipeline.runtime.seeds import mix
from pipeline.runtime.stage import Stage
from pipeline.sampling import balanced_labels, sample_images, sampler
from pipeline.tokenizer import Tokenizer
from pipeline.training.loop import averaged_weights
from pipeline.training.transformer import TransformerTask
from pipeline.training.transformer.alone import train_alone
from pipeline.training.transformer.job import TrainingJob
from pipeline.training.transformer.ray_train import fit
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import transformer_config
from pipeline.weights.pretrained import open_pretrained_transformer
from pipeline.weights.published import load_model, save_model

# The grid: no single trial depends on it. (The curve of its own schedule is part of a trial's key.)
GRID = ("sweep.schedules", "sweep.iterations", "sweep.seeds", CURVES.as_posix())
# A trial's training depends on what the main model's does, except for these.
OWN = (
    "seed",
    "training.steps",
    "training.mask_schedule",
    "ray.num_workers",
    CURVES.as_posix(),
    "stages/train_transformer.py",
    "pipeline/training/networks.py",
)


@dataclass(frozen=True)
class Trial:
    """One (schedule, seed), as plain values that travel to a worker. Paths are absolute."""

    seed: int
    iterations: list[int]
    folder: str  # of what is measured
    training_folder: str  # of its checkpoint and its finished model
    params: dict[str, Any]  # with the trial's own schedule and steps under `training`
    root: str  # the project's folder

    @property
    def schedule(self) -> str:
        return self.params["training"]["mask_schedule"]

    @property
    def name(self) -> str:
        return f"{self.schedule}/seed{self.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        return {"schedule": self.schedule, "seed": self.seed}

    def cell(self, iterations: int) -> Path:
        """The file with the measured row of one T, and how long it took."""
        return Path(self.folder) / "cells" / f"T{iterations:04d}.json"

    @property
    def model(self) -> Path:
        """The folder of its finished model."""
        return Path(self.training_folder) / "model"

    @property
    def trained(self) -> Path:
        """The file with the history of its training, and the seconds that it took."""
        return Path(self.training_folder) / "training.json"

    @property
    def failure(self) -> Failure:
        return Failure(self.folder)

    def missing(self) -> list[int]:
        """The iteration counts T that are not measured yet."""
        return [t for t in self.iterations if not self.cell(t).exists()]

    def rows(self) -> list[dict[str, Any]]:
        """The measured row of every T, in order."""
        return [read_json(self.cell(t))["row"] for t in self.iterations]

    def timings(self) -> list[dict[str, Any]]:
        """The seconds of every T, in order."""
        return [read_json(self.cell(t))["timing"] for t in self.iterations]

    def history(self) -> list[dict[str, float]]:
        """The history of its training; empty where released weights took its place."""
        released = self.params["transformer"]["pretrained"]
        return [] if released else read_json(self.trained)["history"]


def trials(params: Params, stage: Stage) -> list[Trial]:
    """The grid of `params.sweep`, a trial for each (schedule, seed)."""
    sweep, storage = params.sweep, params.ray.storage_path
    training_key = stage_key("train_transformer", OWN)
    training_key |= {"steps": sweep.steps, "workers": sweep.workers_per_trial}
    found = []
    for schedule in sweep.schedules:
        curve = tree_hash(CURVES / f"{schedule}.csv")
        changes = {"steps": sweep.steps, "mask_schedule": schedule}
        training = params.training.model_copy(update=changes)
        own = params.model_copy(update={"training": training}).model_dump()
        for seed in sweep.seeds:
            key = training_key | {"curve": curve, "seed": seed}
            trial = Trial(
                seed=seed,
                iterations=sorted(sweep.iterations),
                folder=str(stage.folder(*GRID, curve=curve, schedule=schedule, seed=seed)),
                training_folder=str(run_dir("sweep/training", key, storage)),
                params=own,
                root=str(Path.cwd()),
            )
            found.append(trial)
    return found


def measure_trial(trial: Trial) -> None:
    """Decode samples from the trial's model at every T that is missing, and measure them."""
    params, root = Params.model_validate(trial.params), Path(trial.root)
    device = _device(params)
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
    images = write_images(path, batches, f"sweep: {trial.name} T={iterations}")
    decode_seconds = time.monotonic() - started
    samples = evaluator.features(images)
    values = evaluator.sample_metrics(samples, trial.seed)
    same = evaluator.extractor.name == evaluator.judge.name
    logits = samples.class_logits if same else evaluator.recognised(images)
    path.unlink()
    return values | {"class_accuracy": class_accuracy(logits, labels)}, decode_seconds


def train_trial(trial: Trial) -> None:
    """Train (or take up) the trial's model: the averaged weights, kept beside the checkpoint."""
    params = Params.model_validate(trial.params)
    if params.transformer.pretrained or trial.model.exists():
        return
    started, classes = time.monotonic(), _num_classes(trial)
    workers = params.sweep.workers_per_trial
    # A Ray Train run of its own, where a trial has several workers.
    folder = Path(trial.training_folder, "train") if workers > 1 else Path(trial.training_folder)
    folder.mkdir(parents=True, exist_ok=True)
    job = TrainingJob(
        params=trial.params,
        tokens_dir=str(Path(trial.root) / TOKENS),
        num_classes=classes,
        task=TransformerTask,
        seed=trial.seed,
        name=trial.name,
        run_dir=str(folder),
    )
    state = fit(job, workers=workers) if workers > 1 else train_alone(job, _device(params))
    seconds = round(time.monotonic() - started, 2)
    weights = averaged_weights(state["task"]["average"])
    write_json(trial.trained, {"history": state["history"], "seconds": seconds})
    save_model(trial.model, "transformer", transformer_config(params, classes), weights)


def _released(trial: Trial, params: Params, device: torch.device) -> MaskGitTransformer:
    model, classes = open_pretrained_transformer(params, device), _num_classes(trial)
    if model.config.num_classes != classes:
        raise UserError(
            f"transformer.pretrained: its model has {model.config.num_classes} classes and the "
            f"data set {classes}; measure it on the data set that it was trained on"
        )
    return model


def _num_classes(trial: Trial) -> int:
    return int(TokenCache(Path(trial.root) / TOKENS, "train").labels.max()) + 1


def _device(params: Params) -> torch.device:
    return pick_device() if params.ray.use_gpu else torch.device("cpu")
