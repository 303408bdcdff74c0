"""Trains MaskGIT or the baseline for each pair of seed and label smoothing; saves the models."""

import shutil
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.config.params import Params
from pipeline.config.paths import RESULTS, TOKENIZER, TOKENS
from pipeline.config.replicates import (
    LISTED,
    NETWORKS,
    Replicate,
    label_smoothing,
    main_replicates,
    replicates,
)
from pipeline.data.images.pixels import grid_picture, save_picture
from pipeline.data.tokens import TokenCache
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import atomic_folder, write_csv
from pipeline.runtime.run_log import RunLog
from pipeline.runtime.stage import Stage
from pipeline.runtime.storage import upload
from pipeline.sampling import Network, balanced_labels, sample_tokens
from pipeline.tokenizer import tokens_to_images
from pipeline.training.likelihood import held_out_nll
from pipeline.training.loop.run import run_jobs, run_training
from pipeline.training.loop.training import Workers
from pipeline.training.transformer import TransformerTask, TransformerTraining
from pipeline.weights.published import load_model, save_model
from pipeline.weights.released.checkpoint import open_pretrained_transformer

SAMPLES = "samples_{}.png"
ROWS, COLUMNS = 4, 10  # maximum rows and columns of the sample grid logged with each checkpoint


def train_network(params: Params, task_type: type[TransformerTask]) -> dict[str, float]:
    """Train a network for each pair of seed and label smoothing, as trials of Ray Tune. Save the
    models, write the history of the first seed's run, and log the metrics. Returns the metrics:
    the means over the seeds of the runs with `training.label_smoothing`."""
    network = task_type.kind
    with Stage(f"train_{network}", params) as stage:
        trainings = {r: _training(params, r, task_type, stage) for r in replicates(params, network)}
        every = list(trainings.values())
        run_jobs(run_training, every, "ray.num_workers", stage, "training runs", _log)
        with atomic_folder(NETWORKS[network]) as folder:
            for replicate, training in trainings.items():
                shutil.copytree(training.model, folder / replicate.name)
        histories = [trainings[r].history for r in main_replicates(params, network)]
        last = [history[-1] for history in histories]
        metrics = {
            "val_nll": float(np.mean([row["val_nll"] for row in last])),
            "train_loss": float(np.mean([row["loss"] for row in last])),
        }
        _write_results(network, histories[0], metrics, stage.run)
    return metrics


def _training(
    params: Params, replicate: Replicate, task_type: type[TransformerTask], stage: Stage
) -> TransformerTraining:
    smoothing, seed = label_smoothing(params, replicate), replicate.seed
    own = {"label_smoothing": smoothing, "other_label_smoothings": []}
    values = {"label_smoothing": smoothing, "seed": seed}
    note = f"Training run of the {replicate.network}: curves (`train/`), and samples by step."
    training = TransformerTraining(
        name=f"{replicate.network}/{replicate.name}",
        params=params.model_copy(update={"training": params.training.model_copy(update=own)}),
        task_type=task_type,
        seed=seed,
        folder=stage.folder(*LISTED, **values),
        workers=Workers.of(params.ray, params.ray.num_workers),
        log=stage.run.child(f"{stage.hash}/{replicate.name}", replicate.name, values, note),
    )
    return replace(training, on_evaluate=partial(_log_samples, training))


def _log(training: TransformerTraining) -> None:
    """Log the history and samples of a finished training run to MLflow. If another machine trained
    the network, this machine may not have logged them. Rows that it has logged are skipped."""
    assert training.log is not None
    log = training.log.begin()
    for row in training.history:
        log.log_training(row)
    for picture in sorted(training.folder.glob(SAMPLES.format("*"))):
        log.log_image(picture, "samples", int(picture.stem.rpartition("_")[2]))
    log.finish(ok=True)


def _log_samples(training: TransformerTraining, model: Network, step: int) -> None:
    """Draw samples from a network during its training, and log them to MLflow as one picture."""
    classes = model.config.num_classes
    labels = balanced_labels(ROWS * min(classes, COLUMNS), classes)
    tokenizer = load_model(TOKENIZER, "tokenizer", model.device)
    autoregressive = isinstance(model, AutoregressiveTransformer)
    settings = training.params.decoding_settings(autoregressive=autoregressive)
    images = tokens_to_images(tokenizer, sample_tokens(model, settings, labels, training.seed))
    path = training.folder / SAMPLES.format(f"{step:07d}")
    save_picture(grid_picture(images, len(images) // ROWS), path)
    upload(path)
    assert training.log is not None
    training.log.log_image(path, "samples", step)


def convert_transformer(params: Params) -> dict[str, float]:
    """Convert the weights file that `transformer.pretrained` names, and save the model. Returns
    the metrics. Raises a `UserError`, and writes nothing, if the weights do not match params.yaml's
    architecture or the data set's number of classes."""
    workers, (first, *_) = workers_of(params.ray), main_replicates(params, "transformer")
    cpu, classes = torch.device("cpu"), TokenCache(TOKENS, "train").num_classes
    model = open_pretrained_transformer(params, cpu, classes)
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
    run.log_group(network, metrics)
