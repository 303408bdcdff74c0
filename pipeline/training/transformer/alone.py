"""A transformer's training in this process, without Ray Train."""

from pathlib import Path
from typing import Any

import torch

from pipeline.config.params import Params
from pipeline.training.loop import RunDirSession, train
from pipeline.training.transformer.job import TrainingJob


def train_alone(job: TrainingJob, device: torch.device) -> dict[str, Any]:
    """Train on one device, going on from the checkpoint of the job's run directory.

    Returns:
        As `ray_train.fit`: {task, history}, and no step.

    Raises:
        UserError: the loss became NaN or infinite.
    """
    params = Params.model_validate(job.params)
    task = job.task(params, job.tokens_dir, job.num_classes, seed=job.seed, device=device)
    history = train(
        task,
        name=job.name,
        steps=params.training.steps,
        every=params.training.checkpoint_every,
        seed=job.seed,
        session=RunDirSession(Path(job.run_dir)),
    )
    return {"task": task.state_dict(), "history": history}
