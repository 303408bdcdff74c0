"""The ablation of Table 3 and Figure 8: one training for each (schedule, seed), decoded with every
T; some models are also decoded with each other's schedule.

The run directory of a trial is named by a hash of what the trial depends on, without the rest of
the grid, and the file of a decoding by a hash of its settings. A trial that was killed resumes from
its last checkpoint and measures only the decodings without a file; a larger grid runs only what is
new; other samples or metrics are measured without training again. Samples are not stored: each
batch is turned into features where it is decoded.
"""

from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CURVES, TOKENIZER, TOKENS
from pipeline.data.seeds import mix
from pipeline.data.tokens import TokenCache
from pipeline.decoding import DecodingSettings
from pipeline.evaluation.evaluator import Evaluator
from pipeline.experiments.rows import Row, measured_row
from pipeline.masking import masked_nll
from pipeline.runtime.batches import BatchWorkers, Maker, workers_of
from pipeline.runtime.dag import stage_key
from pipeline.runtime.files import read_json, tree_hash, value_hash
from pipeline.runtime.run_log import RunLog
from pipeline.runtime.runs import run_dir
from pipeline.runtime.stage import Stage
from pipeline.runtime.storage import download, upload
from pipeline.runtime.trials import run_beside
from pipeline.sampling import Sampler, sample_batches
from pipeline.training.loop.run import run_training
from pipeline.training.loop.training import Workers
from pipeline.training.transformer import TransformerTask, TransformerTraining
from pipeline.weights.published import load_model
from pipeline.weights.released.checkpoint import open_pretrained_transformer

SETTINGS = tuple(field.name for field in fields(DecodingSettings))
# A trial does not depend on the rest of the grid. Its curve is a part of its own key, and the
# decoding settings name its files.
GRID = (
    *("sweep.schedules", "sweep.seeds", "sweep.crossed", CURVES.as_posix()),
    *(f"sweep.{name}" for name in SETTINGS),
    *(f"decoding.{name}" for name in SETTINGS),
)
# A trial's training depends on what the main model's training does, except for these: it has its
# own values and code instead.
OWN = (
    *("seed", "evaluation.seeds", "training.steps", "training.mask_schedule", "ray.num_workers"),
    *("training.other_label_smoothings", CURVES.as_posix()),
    *("stages/train_transformer.py", "pipeline/training/networks.py"),
)
NOTE = (
    "A training with this schedule and seed (`train/`, by step), decoded with every T: `T/`, "
    "whose step is T. `T_best/` is over T."
)


def axes(params: Params) -> dict[str, list[Any]]:
    """The decoding settings that the sweep varies, with their values: the fields of
    `DecodingSettings` for which the section `sweep` has a list of the same name."""
    found = {name: getattr(params.sweep, name, None) for name in SETTINGS}
    return {name: sorted(values) for name, values in found.items() if values is not None}


@dataclass(frozen=True)
class Trial:
    """One (schedule, seed) of the sweep."""

    seed: int
    # By the file of what is measured: with the trial's own schedule, one for each combination of
    # the axes; and with each of the schedules of `sweep.crossed`.
    decodings: dict[Path, DecodingSettings]
    crossed: dict[Path, DecodingSettings]
    training: TransformerTraining | None  # None where released weights take its place
    workers: Workers  # of the training; then one of them measures, and the others decode
    params: Params  # with the trial's own schedule and steps under `training`
    folder: Path  # of what is measured
    log: RunLog  # its MLflow run

    @property
    def schedule(self) -> str:
        return self.params.training.mask_schedule

    @property
    def name(self) -> str:
        return f"{self.schedule}/seed{self.seed}"

    @property
    def folders(self) -> list[Path]:
        """The run directories that the trial reads and writes."""
        training = [] if self.training is None else self.training.folders
        return [self.folder, *training]

    @property
    def missing(self) -> dict[Path, DecodingSettings]:
        """The decodings that are not measured yet."""
        every = self.decodings | self.crossed
        return {path: settings for path, settings in every.items() if not path.exists()}

    @property
    def finished(self) -> bool:
        return not self.missing

    def rows(self) -> list[Row]:
        """The measurements with the trial's own schedule."""
        return [read_json(path) for path in self.decodings]

    def crossing(self) -> list[Row]:
        """The row of every schedule that the model is decoded with."""
        return [
            {"decoding_schedule": settings.schedule} | read_json(path)
            for path, settings in self.crossed.items()
        ]


def trials(params: Params, stage: Stage) -> list[Trial]:
    """The trials of `params.sweep`, one for each (schedule, seed)."""
    sweep, ray, swept, found = params.sweep, params.ray, axes(params), []
    workers = Workers.of(ray, sweep.workers_per_trial or ray.num_workers)
    common = stage_key("train_transformer", [*OWN, *ray.not_in_key]) | {"steps": sweep.steps}
    common |= {} if ray.not_in_key else {"workers": workers.count}
    for schedule, seed in product(sweep.schedules, sweep.seeds):
        name, own = f"{schedule}/seed{seed}", {"schedule": schedule, "seed": seed}
        log = stage.run.child(f"{stage.hash}/{name}", name, own, NOTE)
        key = own | {"curve": _curve(schedule)}
        changes = {"steps": sweep.steps, "mask_schedule": schedule}
        own_training = params.training.model_copy(update=changes)
        own_params = params.model_copy(update={"training": own_training})
        folder, settings = stage.folder(*GRID, **key), own_params.decoding_settings()
        varied = [dict(zip(swept, values, strict=True)) for values in product(*swept.values())]
        crossed = sweep.crossed if schedule in sweep.crossed else []
        training = None
        if params.transformer.pretrained is None:
            training = TransformerTraining(
                params=own_params,
                task_type=TransformerTask,
                name=name,
                seed=seed,
                folder=run_dir("sweep/training", common | key, ray.folder),
                workers=workers,
                log=log,
            )
        decodings = _files(folder, [replace(settings, **values) for values in varied])
        others = _files(folder, [replace(settings, schedule=other) for other in crossed])
        found.append(Trial(seed, decodings, others, training, workers, own_params, folder, log))
    return found


def _files(folder: Path, decodings: list[DecodingSettings]) -> dict[Path, DecodingSettings]:
    """The files of a trial's decodings, each with the settings of its decoding."""
    keys = [asdict(settings) | {"curve": _curve(settings.schedule)} for settings in decodings]
    paths = [folder / "cells" / f"{value_hash(key)[:16]}.json" for key in keys]
    return dict(zip(paths, decodings, strict=True))


def _curve(schedule: str) -> str:
    """The hash of a schedule's curve."""
    return tree_hash(CURVES / f"{schedule}.csv")


def run_trial(trial: Trial) -> None:
    """Train the trial's model, unless it is finished or released weights replace it, and measure
    it."""
    trial.log.begin()
    if trial.training is not None and not trial.training.finished:
        run_training(trial.training)
    if trial.workers.under_ray_train:
        run_beside(measure_trial, trial, resources=trial.workers.resources)
    else:
        measure_trial(trial)


def measure_trial(trial: Trial) -> None:
    """Decode samples with the trial's model in every way that is not measured yet, and measure
    them."""
    download(*trial.folders)
    params, workers = trial.params, decoders(trial)
    sampler = Maker(_open_sampler, trial)
    evaluator = Evaluator(params, workers)
    shown = evaluator.on_the_fly(sampler)
    nll = masked_nll(
        sampler.open(workers.device).model,
        *TokenCache(TOKENS, "val").everything(),
        schedule=trial.schedule,
        min_masking_rate=params.training.min_masking_rate,
        seed=trial.seed,
        device=workers.device,
    )
    labels = evaluator.labels(params.sweep.samples)
    own = {"schedule": trial.schedule, "seed": trial.seed, "samples": len(labels), "nll": nll}
    size, seed = params.decoding.batch_size, mix(trial.seed, "sweep")
    for path, settings in trial.missing.items():
        varied = {name: getattr(settings, name) for name in axes(params)}

        def measure(found: dict[str, Tensor], varied: Row = varied) -> Row:
            values = evaluator.scores(found, labels, trial.seed)
            values |= evaluator.distances(found["features"], trial.seed)
            return own | varied | values | evaluator.manifolds(found["features"], trial.seed)

        name = " ".join(["sweep:", trial.name, *(f"{k}={v}" for k, v in varied.items())])
        batches = sample_batches(settings, labels, batch_size=size, seed=seed)
        measured_row(path, workers, shown, batches, name, measure)
        upload(path)


def decoders(trial: Trial) -> BatchWorkers:
    """The trial's workers except for the one that measures, or this process if it is the only
    one."""
    count = max(1, trial.workers.count - 1)
    return workers_of(trial.params.ray.model_copy(update={"num_workers": count}))


def _open_sampler(trial: Trial, device: torch.device) -> Sampler:
    """Open the sampler of the trial's model, or of the released weights."""
    download(*trial.folders)
    tokenizer = load_model(TOKENIZER, "tokenizer", device)
    if trial.training is not None:
        return Sampler(load_model(trial.training.model, "transformer", device), tokenizer)
    classes = TokenCache(TOKENS, "train").num_classes
    return Sampler(open_pretrained_transformer(trial.params, device, classes), tokenizer)
