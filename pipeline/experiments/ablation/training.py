"""Training of a trial: the main model's, with a schedule, a seed and steps of the trial's own."""

from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.paths import CURVES
from pipeline.config.trainings import workers_per_trial
from pipeline.runtime.dag import stage_key
from pipeline.runtime.files import tree_hash
from pipeline.runtime.runs import run_dir
from pipeline.training.loop import Workers
from pipeline.training.transformer import TransformerTask, TransformerTraining

# A trial's training depends on what the main model's does, except for these, in whose place it has
# values and code of its own.
OWN = (
    "seed",
    "evaluation.seeds",
    "training.steps",
    "training.mask_schedule",
    "training.other_label_smoothings",
    "ray.num_workers",
    CURVES.as_posix(),
    "stages/train_transformer.py",
    "pipeline/training/networks.py",
)


def training_key(params: Params) -> dict[str, Any]:
    """What the training of every trial depends on; its schedule, curve and seed come to that."""
    ignore = params.ray.not_in_key
    own = {"steps": params.sweep.steps, "code": tree_hash(Path(__file__))}
    workers = {} if ignore else {"workers": workers_per_trial(params)}
    return stage_key("train_transformer", [*OWN, *ignore]) | own | workers


def trial_params(params: Params, schedule: str) -> Params:
    """The params of a trial of that schedule."""
    changes = {"steps": params.sweep.steps, "mask_schedule": schedule}
    training = params.training.model_copy(update=changes)
    return params.model_copy(update={"training": training})


def training_job(params: Params, key: dict[str, Any], seed: int) -> TransformerTraining:
    """The training of a trial.

    Args:
        params: the trial's.
        key: what it depends on, which names its folder.
    """
    return TransformerTraining(
        params=params,
        task_type=TransformerTask,
        name=f"{params.training.mask_schedule}/seed{seed}",
        seed=seed,
        folder=run_dir("sweep/training", key, params.ray.folder),
        workers=Workers.of(params.ray, workers_per_trial(params)),
    )
