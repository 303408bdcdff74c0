"""Training of a trial: the main model's, with a schedule, a seed and steps of the trial's own."""

import time
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.paths import CURVES, TOKENS
from pipeline.experiments.ablation.trial import Trial
from pipeline.runtime.dag import stage_key
from pipeline.runtime.files import tree_hash, write_json
from pipeline.training.loop import RunDirSession, averaged_weights, train
from pipeline.training.transformer import TransformerTask
from pipeline.training.transformer.job import TrainingJob
from pipeline.training.transformer.ray_train import fit
from pipeline.weights.configs import transformer_config
from pipeline.weights.published import save_model

# A trial's training depends on what the main model's does, except for these, in whose place it has
# values and code of its own.
OWN = (
    "seed",
    "training.steps",
    "training.mask_schedule",
    "ray.num_workers",
    CURVES.as_posix(),
    "stages/train_transformer.py",
    "pipeline/training/networks.py",
)
CODE = (Path(__file__), Path(__file__).with_name("trial.py"))


def training_key(params: Params) -> dict[str, Any]:
    """What the training of every trial depends on; its schedule, curve and seed come to that."""
    own = {"steps": params.sweep.steps, "workers": params.sweep.workers_per_trial}
    code = {path.name: tree_hash(path) for path in CODE}
    return stage_key("train_transformer", OWN) | own | {"code": code}


def trial_params(params: Params, schedule: str) -> Params:
    """The params of a trial of that schedule."""
    changes = {"steps": params.sweep.steps, "mask_schedule": schedule}
    training = params.training.model_copy(update=changes)
    return params.model_copy(update={"training": training})


def train_trial(trial: Trial) -> None:
    """Train (or take up) the trial's model: the averaged weights, kept beside the checkpoint."""
    params = Params.model_validate(trial.params)
    if params.transformer.pretrained or trial.model.exists():
        return
    started, workers = time.monotonic(), params.sweep.workers_per_trial
    # A Ray Train run of its own, where a trial has several workers.
    folder = Path(trial.training_folder, "train") if workers > 1 else Path(trial.training_folder)
    folder.mkdir(parents=True, exist_ok=True)
    job = TrainingJob(
        params=trial.params,
        tokens_dir=str(Path(trial.root) / TOKENS),
        num_classes=trial.num_classes,
        task=TransformerTask,
        seed=trial.seed,
        name=trial.name,
        run_dir=str(folder),
    )
    state = fit(job, workers=workers) if workers > 1 else _train_here(trial, job, params)
    seconds = round(time.monotonic() - started, 2)
    weights = averaged_weights(state["task"]["average"])
    write_json(trial.trained, {"history": state["history"], "seconds": seconds})
    config = transformer_config(params, trial.num_classes)
    save_model(trial.model, "transformer", config, weights)


def _train_here(trial: Trial, job: TrainingJob, params: Params) -> dict[str, Any]:
    """In this process, without Ray Train; returns {task, history}."""
    task = job.task(params, job.tokens_dir, job.num_classes, seed=job.seed, device=trial.device())
    history = train(
        task,
        name=job.name,
        steps=params.training.steps,
        every=params.training.checkpoint_every,
        seed=job.seed,
        session=RunDirSession(Path(job.run_dir)),
    )
    return {"task": task.state_dict(), "history": history}
