"""Training of a trial: the main model's, with a schedule, a seed and steps of the trial's own."""

from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.paths import CURVES, TOKENS
from pipeline.config.trainings import workers_per_trial
from pipeline.data.tokens import TokenCache
from pipeline.runtime.dag import stage_key
from pipeline.runtime.files import tree_hash
from pipeline.runtime.runs import run_dir
from pipeline.training.transformer import TransformerTask
from pipeline.training.transformer.job import TransformerJob, TransformerRecipe, transformer_job

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


def training_job(params: Params, key: dict[str, Any], seed: int) -> TransformerJob:
    """The training of a trial.

    Args:
        params: the trial's.
        key: what it depends on, which names its folder.
    """
    tokens, classes = str(TOKENS.absolute()), TokenCache(TOKENS, "train").num_classes
    return transformer_job(
        params,
        TransformerRecipe(TransformerTask, params.model_dump(), tokens, classes, seed),
        network="transformer",
        name=f"{params.training.mask_schedule}/seed{seed}",
        folder=run_dir("sweep/training", key, params.ray.folder),
        workers=workers_per_trial(params),
    )
