"""Runs the ablation of mask schedules (Table 3, Figure 8). Each trial trains a model with one mask
schedule and seed, then decodes samples (1) with this schedule and every T in `sweep.iterations`,
(2) with every schedule in `sweep.crossed`, if it contains this one, and (3) with the settings in
`sweep.designs`. If it lists other numbers of training steps, further trials train for these.

The name of a trial's run directory contains a hash of everything that the trial depends on, but not
of the other trials. The name of a result file is a hash of the decoding settings. So a killed
trial resumes from its last checkpoint and computes only missing result files. If schedules or
seeds are added to the param section `sweep`, only new trials run. Samples are not stored: the
worker that decodes samples also extracts their features.
"""

from collections import defaultdict
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CURVES, TOKENIZER, TOKENS
from pipeline.data.seeds import mix
from pipeline.data.tokens import TokenCache
from pipeline.decoding.settings import DecodingSettings
from pipeline.evaluation.evaluator import Evaluator
from pipeline.experiments.rows import Row, curve_hash, measured_row
from pipeline.masking import masked_nll
from pipeline.runtime.batches import BatchWorkers, Maker, workers_of
from pipeline.runtime.dag import stage_key
from pipeline.runtime.files import read_json, value_hash
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

# The hash in the name of a trial's run directory leaves these out, but includes the curve of the
# trial's own schedule. The names of the trial's result files are hashes of the decoding settings.
GRID = (
    *("sweep.schedules", "sweep.iterations", "sweep.seeds", "sweep.crossed", "sweep.designs"),
    *(f"decoding.{field.name}" for field in fields(DecodingSettings)),
    CURVES.as_posix(),
)
# The key of a trial's training run is the key of the stage `train_transformer` without these params
# and files: the trial uses its own values and code instead.
NOT_TRAINED = (
    *("seed", "evaluation.seeds", "training.steps", "training.mask_schedule", "ray.num_workers"),
    *("training.other_label_smoothings", CURVES.as_posix()),
    *("stages/train_transformer.py", "pipeline/training/networks.py"),
)
Other = tuple[tuple[str, Any], ...]  # names and values of decoding settings other than T
NOTE = (
    "A training run with this schedule and seed (`train/`, by step), and its samples with every T "
    "(`T/`, where the step is T) and with the best T (`T_best/`)."
)


@dataclass(frozen=True)
class Trial:
    """A model with one (mask schedule, steps, seed), and the decoding settings to measure."""

    name: str
    seed: int
    # Decodings of the model: result file -> settings. The first two are empty if the trial's
    # steps are not `sweep.steps`.
    decodings: dict[Path, DecodingSettings]  # with the trial's own schedule and every T
    crossed: dict[Path, DecodingSettings]  # with every schedule in `sweep.crossed`, if its own is
    designs: dict[Path, DecodingSettings]  # settings of `sweep.designs` with the trial's schedule
    training: TransformerTraining | None  # None if released weights replace training
    workers: Workers  # workers that train; then they decode (see `decoders`)
    params: Params  # the section `training` has the trial's schedule and steps
    folder: Path  # run directory of the result files
    log: RunLog  # the trial's MLflow run

    @property
    def folders(self) -> list[Path]:
        training = [] if self.training is None else self.training.folders
        return [self.folder, *training]

    @property
    def missing(self) -> dict[Path, DecodingSettings]:
        """The result files that do not exist yet, each with its decoding settings."""
        every = self.decodings | self.crossed | self.designs
        return {path: settings for path, settings in every.items() if not path.exists()}

    @property
    def finished(self) -> bool:
        return not self.missing

    def rows(self) -> list[Row]:
        """Result rows of decoding with the schedule used in training: one row per T."""
        return [_row(file, {"iterations": how.iterations}) for file, how in self.decodings.items()]

    def crossing(self) -> list[Row]:
        """Result rows of decoding with each schedule in `sweep.crossed`: one row per schedule."""
        return [
            {"decoding_schedule": how.schedule} | _row(file, {"iterations": how.iterations})
            for file, how in self.crossed.items()
        ]

    def design_rows(self) -> dict[Other, list[Row]]:
        """Map each combination of values of the settings that `varied` returns to its result rows,
        one per T. The column `passes` counts the network's forward passes per image."""
        found = defaultdict[Other, list[Row]](list)
        for file, how in self.designs.items():
            setting = asdict(how) | {"steps": self.params.training.steps}
            other = tuple((name, setting[name]) for name in varied(self.params))
            own = {"iterations": how.iterations, "passes": how.passes}
            found[other].append(_row(file, dict(other) | own))
        return found


def _row(file: Path, settings: Row) -> Row:
    """Read a row from a result file, add `settings` as columns, and sort the columns by name."""
    return dict(sorted((read_json(file) | settings).items()))


def varied(params: Params) -> list[str]:
    """The names of the settings that `sweep.designs` lists, except schedule and T."""
    names = [name for design in params.sweep.designs for name in design]
    return [name for name in dict.fromkeys(names) if name not in ("schedule", "iterations")]


def trials(params: Params, stage: Stage) -> list[Trial]:
    """The trials of the stage `sweep`, one per (mask schedule, steps, seed)."""
    sweep, ray, designs, found = params.sweep, params.ray, params.sweep_designs(), []
    workers = Workers.of(ray, sweep.workers_per_trial or ray.num_workers)
    common = stage_key("train_transformer", [*NOT_TRAINED, *ray.not_in_key])
    common |= {} if ray.not_in_key else {"workers": workers.count}
    trained = [(*each, seed) for each in params.sweep_trainings() for seed in sweep.seeds]
    for schedule, steps, seed in trained:
        main, own = steps == sweep.steps, {"schedule": schedule, "seed": seed}
        own |= {} if main else {"steps": steps}
        name = f"{schedule}/{'' if main else f'steps{steps}/'}seed{seed}"
        log = stage.run.child(f"{stage.hash}/{name}", name, own, NOTE)
        key = own | {"curve": curve_hash(schedule)}
        changes = {"steps": steps, "mask_schedule": schedule}
        own_training = params.training.model_copy(update=changes)
        own_params = params.model_copy(update={"training": own_training})
        folder, settings = stage.folder(*GRID, **key), own_params.decoding_settings()
        crossed = sweep.crossed if main and schedule in sweep.crossed else []
        training = None
        if params.transformer.pretrained is None:
            training = TransformerTraining(
                params=own_params,
                task_type=TransformerTask,
                name=name,
                seed=seed,
                folder=run_dir("sweep/training", common | key | {"steps": steps}, ray.folder),
                workers=workers,
                log=log,
            )
        own_t = [replace(settings, iterations=t) for t in sorted(sweep.iterations) if main]
        others = [replace(settings, schedule=other) for other in crossed]
        designed = [each for n, each in designs if (each.schedule, n) == (schedule, steps)]
        found.append(
            Trial(
                name=name,
                seed=seed,
                decodings=_files(folder, own_t),
                crossed=_files(folder, others),
                designs=_files(folder, designed),
                training=training,
                workers=workers,
                params=own_params,
                folder=folder,
                log=log,
            )
        )
    return found


def _files(folder: Path, decodings: list[DecodingSettings]) -> dict[Path, DecodingSettings]:
    """Map each result file of a trial to the settings of its decoding."""
    keys = [asdict(settings) | {"curve": curve_hash(settings.schedule)} for settings in decodings]
    paths = [folder / "cells" / f"{value_hash(key)[:16]}.json" for key in keys]
    return dict(zip(paths, decodings, strict=True))


def run_trial(trial: Trial) -> None:
    """Train a trial's model, unless it is already trained or the trial uses released weights. Then
    run `measure_trial`."""
    trial.log.begin()
    if trial.training is not None and not trial.training.finished:
        run_training(trial.training)
    if trial.workers.under_ray_train:
        run_beside(measure_trial, trial, resources=trial.workers.resources)
    else:
        measure_trial(trial)


def measure_trial(trial: Trial) -> None:
    """For every missing result file of a trial, decode samples with the trial's model, and write
    metrics of the samples and the model's validation NLL to the file."""
    download(*trial.folders)
    params, workers = trial.params, decoders(trial)
    sampler = Maker(_open_sampler, trial)
    evaluator = Evaluator(params, workers)
    sampling = evaluator.on_the_fly(sampler)
    nll = masked_nll(
        sampler.open(workers.device).model,
        *TokenCache(TOKENS, "val").everything(),
        schedule=params.training.mask_schedule,
        min_masking_rate=params.training.min_masking_rate,
        seed=trial.seed,
    )
    labels = evaluator.labels(params.sweep.samples)
    own = {"schedule": params.training.mask_schedule, "seed": trial.seed}
    own |= {"samples": len(labels), "nll": nll}
    size, seed = params.decoding.batch_size, mix(trial.seed, "sweep")
    main = asdict(params.decoding_settings())

    def measure(found: dict[str, Tensor]) -> Row:
        values = evaluator.scores(found, labels, trial.seed)
        values |= evaluator.distances(found["features"], trial.seed)
        return own | values | evaluator.manifolds(found["features"], trial.seed)

    for path, settings in trial.missing.items():
        said = {k: v for k, v in asdict(settings).items() if v != main[k] or k == "iterations"}
        name = " ".join(["sweep:", trial.name, *(f"{k}={v}" for k, v in said.items())])
        batches = sample_batches(settings, labels, batch_size=size, seed=seed)
        measured_row(path, workers, sampling, batches, name, measure)
        upload(path)


def decoders(trial: Trial) -> BatchWorkers:
    """Return the workers that decode a trial's samples: n - 1 Ray actors if the trial has n > 2
    workers, else this process. This process always computes the metrics."""
    count = max(1, trial.workers.count - 1)
    return workers_of(trial.params.ray.model_copy(update={"num_workers": count}))


def _open_sampler(trial: Trial, device: torch.device) -> Sampler:
    download(*trial.folders)
    tokenizer = load_model(TOKENIZER, "tokenizer", device)
    if trial.training is not None:
        return Sampler(load_model(trial.training.model, "transformer", device), tokenizer)
    classes = TokenCache(TOKENS, "train").num_classes
    return Sampler(open_pretrained_transformer(trial.params, device, classes), tokenizer)
