"""The part that the stages of both transformers share: a training for each replicate, and their
outputs."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.config.params import Params
from pipeline.config.paths import RESULTS, TOKENIZER, TOKENS
from pipeline.config.replicates import (
    NETWORKS,
    NetworkName,
    Replicate,
    label_smoothing,
    main_replicates,
    replicates,
)
from pipeline.data.image_grid import grid_picture, save_picture
from pipeline.data.tokens import TokenCache
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import atomic_folder, write_csv, write_json
from pipeline.runtime.progress import Countdown
from pipeline.runtime.ray_cluster import join_ray, require_resources
from pipeline.runtime.run_log import RunLog
from pipeline.runtime.stage import Stage
from pipeline.runtime.storage import upload
from pipeline.runtime.trials import run_trials
from pipeline.sampling import Network, balanced_labels, sampler
from pipeline.tokenizer import tokens_to_images
from pipeline.training.transformer import TransformerTask
from pipeline.training.transformer.job import TransformerJob, TransformerRecipe, transformer_job
from pipeline.training.transformer.likelihood import held_out, held_out_nll
from pipeline.training.transformer.model import train_model
from pipeline.weights.published import load_model, save_model
from pipeline.weights.released.checkpoint import open_pretrained_transformer

# No single training depends on how many others there are; its own values are a part of its key.
OTHERS = ("evaluation.seeds", "training.label_smoothing", "training.other_label_smoothings")


@dataclass(frozen=True)
class Training:
    """The training of a replicate, as a trial of Ray Tune."""

    job: TransformerJob
    observer: "Observer"  # logs to a run of its own, a child of the stage's

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def folders(self) -> list[Path]:
        return self.job.folders

    @property
    def finished(self) -> bool:
        return self.job.finished

    @property
    def history(self) -> list[dict[str, float]]:
        return self.job.history


def train_network(
    params: Params, network: NetworkName, task: type[TransformerTask]
) -> dict[str, float]:
    """Train every replicate of one of the transformers, publish their models, write the curve of
    the first one and the metrics.

    Returns:
        The metrics' means over the main replicates.
    """
    stage, ray = Stage(f"train_{network}", params), params.ray
    planned = replicates(params, network)
    jobs = {replicate: _job(params, replicate, task, stage) for replicate in planned}
    pending = [job for job in jobs.values() if not job.finished]
    if pending:
        join_ray()
        require_resources(ray.num_workers, ray.cpus_per_worker, ray.use_gpu, "ray.num_workers")
    with stage:
        count = Countdown(stage.name, "trainings", len(jobs), len(pending))
        trainings = {
            replicate: Training(job, Observer(_child(stage, replicate, params), job))
            for replicate, job in jobs.items()
        }
        for training in trainings.values():
            if training.finished:
                _log(training)
        if pending:
            _run([t for t in trainings.values() if not t.finished], stage, count)
        with atomic_folder(NETWORKS[network]) as folder:
            for replicate, job in jobs.items():
                shutil.copytree(job.model, folder / replicate.name)
        histories = [trainings[r].history for r in main_replicates(params, network)]
        last = [history[-1] for history in histories]
        metrics = {
            "val_nll": float(np.mean([row["val_nll"] for row in last])),
            "train_loss": float(np.mean([row["loss"] for row in last])),
        }
        _write_results(network, histories[0], metrics, stage.run)
    return metrics


def _job(
    params: Params, replicate: Replicate, task: type[TransformerTask], stage: Stage
) -> TransformerJob:
    smoothing, seed = label_smoothing(params, replicate), replicate.seed
    own = {"label_smoothing": smoothing, "other_label_smoothings": []}
    training = params.training.model_copy(update=own)
    values = params.model_copy(update={"training": training}).model_dump()
    classes = TokenCache(TOKENS, "train").num_classes
    return transformer_job(
        params,
        TransformerRecipe(task, values, str(TOKENS.absolute()), classes, seed),
        network=replicate.network,
        name=f"{replicate.network}/{replicate.name}",
        folder=stage.folder(*OTHERS, label_smoothing=smoothing, seed=seed),
        workers=params.ray.num_workers,
    )


def _child(stage: Stage, replicate: Replicate, params: Params) -> RunLog:
    values = {"label_smoothing": label_smoothing(params, replicate), "seed": replicate.seed}
    note = f"One training of the {replicate.network}: its curves (`train/`), and samples by step."
    return stage.run.child(f"{stage.hash}/{replicate.name}", replicate.name, values, note)


def _run(pending: list[Training], stage: Stage, count: Countdown) -> None:
    workers = pending[0].job.workers
    needs = workers.needs(stage.folder())

    def end(training: Training, value: None) -> None:
        _log(training)  # again: its worker may have logged on another machine
        count.done(training.name)

    try:
        run_trials(_train, pending, needs, stage=stage.name, on_done=end)
    finally:
        for training in pending:
            if not training.finished:
                training.observer.run.finish(ok=False)


def _train(training: Training) -> None:
    observer = training.observer
    observer.run.begin()
    train_model(training.job, on_row=observer.on_row, on_evaluate=observer.on_evaluate)


def _log(training: Training) -> None:
    """Log a training whole, as it would have been logged live; what was, is there once."""
    run = training.observer.run.begin()
    for row in training.history:
        run.log_training(row)
    for picture in sorted(Path(training.job.folder).glob(SAMPLES.format("*"))):
        if (step := picture.stem.rpartition("_")[2]).isdecimal():  # else it is somebody's own
            run.log_image(picture, "samples", int(step))
    run.finish(ok=True)


def convert_transformer(params: Params) -> dict[str, float]:
    """Publish `transformer.pretrained` in place of a training.

    Raises:
        UserError: the file does not hold this architecture, or not as many classes as the data set
            has; nothing is written then.
    """
    workers, (first, *_) = workers_of(params.ray), main_replicates(params, "transformer")
    cpu, classes = torch.device("cpu"), TokenCache(TOKENS, "train").num_classes
    model = open_pretrained_transformer(params, cpu, classes)
    held_out(params)
    with Stage("train_transformer", params) as stage:
        with atomic_folder(NETWORKS["transformer"]) as folder:
            save_model(folder / first.name, "transformer", model.config, model.state_dict())
        parts = stage.folder() / "validation"
        nll = held_out_nll("transformer", first.folder, params, first.seed, parts, workers)
        metrics = {"val_nll": nll}
        _write_results("transformer", [{"step": 0, "loss": None} | metrics], metrics, stage.run)
    return metrics


def _write_results(
    network: str, history: list[dict[str, Any]], metrics: dict[str, float], run: RunLog
) -> None:
    others = [name for name in history[0] if name not in ("step", "loss")]
    write_csv(RESULTS / network / "history.csv", history, columns=["step", "loss", *others])
    write_json(RESULTS / network / "metrics.json", metrics)
    run.log_group(network, metrics)


SAMPLES = "samples_{}.png"
ROWS, COLUMNS = 4, 10  # at most, of the samples in it


def preview_size(classes: int) -> int:
    """How many samples are logged with a checkpoint."""
    return ROWS * min(classes, COLUMNS)


class Observer:
    """Logs, on the first worker, the curve of a training and a grid of samples."""

    def __init__(self, run: RunLog, job: TransformerJob):
        self.run, self.job, self.params = run, job, job.params
        self.tokenizer = TOKENIZER.absolute()

    def on_row(self, row: dict[str, float]) -> None:
        self.run.log_training(row)

    def on_evaluate(self, model: Network, step: int) -> None:
        classes = model.config.num_classes
        labels = balanced_labels(preview_size(classes), classes)
        tokenizer = load_model(self.tokenizer, "tokenizer", next(model.parameters()).device)
        autoregressive = isinstance(model, AutoregressiveTransformer)
        draw = sampler(model, self.params.decoding_settings(autoregressive=autoregressive))
        images = tokens_to_images(tokenizer, draw(labels, self.job.seed))
        path = Path(self.job.folder, SAMPLES.format(f"{step:07d}"))
        save_picture(grid_picture(images, len(images) // ROWS), path)
        upload(path)
        self.run.log_image(path, "samples", step)
