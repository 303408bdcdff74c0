"""A training from its beginning, or its last checkpoint, to its end: by one process or several."""

from collections.abc import Callable
from typing import Any

from pipeline.data.ranks import ALONE
from pipeline.runtime.device import worker_device
from pipeline.runtime.ray_cluster import join_ray, require_resources
from pipeline.training.loop.checkpoints import RunDirSession
from pipeline.training.loop.job import TrainingJob, Workers
from pipeline.training.loop.ray_train import fit
from pipeline.training.loop.train import train


def require_workers(workers: Workers, key: str) -> None:
    """Join Ray where the workers need it; one trains in its own process, unless it may be replaced
    by several.

    Args:
        key: the param that sets their number, for the error.

    Raises:
        UserError: Ray cannot be joined, or can never hold them.
    """
    if workers.under_ray_train:
        join_ray()
        require_resources(workers.count, workers.cpus, workers.use_gpu, key)


def run_training(
    job: TrainingJob, on_row: Callable[[dict[str, float]], None] = lambda row: None
) -> dict[str, Any]:
    """Train in this process, or with the job's workers under Ray Train, which was joined.

    Args:
        on_row: called on the first worker with each new row of the history.

    Returns:
        {task, history}: the final state of the task, and a row for each checkpoint.

    Raises:
        UserError: training failed; the last checkpoint is kept.
    """
    if job.workers.under_ray_train:
        return fit(job, on_row)
    device = worker_device(job.workers.use_gpu)
    task = job.recipe(ALONE, device)
    session = RunDirSession(job.run_dir, on_row)
    history = train(
        task,
        name=job.name,
        run=job.run,
        steps=job.steps,
        every=job.every,
        seed=job.seed,
        session=session,
    )
    return {"task": task.state_dict(), "history": history}
