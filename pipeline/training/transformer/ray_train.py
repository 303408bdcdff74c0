"""A transformer's training under Ray Train: data-parallel workers, checkpoints in Ray's storage.

The run's name carries the hash of everything it depends on, since Ray Train takes up whatever run
it finds under the same name and storage path.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.config.params import Params
from pipeline.config.schema import Ray
from pipeline.runtime.device import repeatable
from pipeline.runtime.errors import UserError
from pipeline.runtime.process import set_up
from pipeline.training.loop import Diverged, load_checkpoint, save_checkpoint, train
from pipeline.training.transformer.job import TrainingJob

CHECKPOINT = "checkpoint.pt"
LISTING = "checkpoint_manager_snapshot.json"  # Ray's, of the checkpoints that it knows


def fit(
    job: TrainingJob,
    *,
    workers: int,
    on_row: Callable[[dict[str, float]], None] = lambda row: None,
    on_evaluate: Callable[[Any, int], None] = lambda model, step: None,
) -> dict[str, Any]:
    """Train with `workers` data-parallel workers, from the last checkpoint of a run of the same
    name.

    Args:
        on_row: called on the first worker with each new row of the history.
        on_evaluate: called on the first worker with the averaged model and the step.

    Returns:
        The final checkpoint: {task, step, history}.

    Raises:
        UserError: training failed, with the worker's own message where it was a `UserError`.
    """
    from ray.train import TrainingFailedError
    from ray.train.torch import TorchTrainer

    unlisted = _unlisted_checkpoint(Path(job.run_dir))
    job.failure.clear()
    config = {"job": job, "unlisted": unlisted, "on_row": on_row, "on_evaluate": on_evaluate}
    trainer = TorchTrainer(_worker, train_loop_config=config, **_ray_config(job, workers))
    lost = None
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        lost = error
    if (reason := job.failure.read()) is not None:
        raise UserError(reason) from lost
    if lost:
        last_line = str(lost).strip().splitlines()[-1]
        raise UserError(
            f"{job.name}: a worker failed ({last_line}); run again to go on from its checkpoint"
        ) from lost
    state = _state(result.checkpoint, unlisted)
    assert state is not None  # the last step of a training always leaves a checkpoint
    return state


def worker_resources(ray: Ray) -> dict[str, float]:
    """The resources that one worker of a training occupies, as Ray takes them."""
    resources: dict[str, float] = {"CPU": ray.cpus_per_worker}
    return resources | ({"GPU": 1} if ray.use_gpu else {})


def _ray_config(job: TrainingJob, workers: int) -> dict[str, Any]:
    """Workers, storage, restarts and checkpoints, as Ray Train takes them."""
    from ray.train import (
        CheckpointConfig,
        FailureConfig,
        LoggingConfig,
        RunConfig,
        ScalingConfig,
    )

    run, ray_params = Path(job.run_dir), Params.model_validate(job.params).ray
    resources = worker_resources(ray_params)
    # Type checkers read version 1 of Ray Train, which lacks two of these arguments.
    return {
        "scaling_config": ScalingConfig(
            num_workers=workers, use_gpu=ray_params.use_gpu, resources_per_worker=resources
        ),
        "run_config": RunConfig(  # type: ignore[call-arg]
            name=run.name,
            storage_path=str(run.parent),
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=ray_params.max_failures, controller_failure_limit=3
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    }


def _unlisted_checkpoint(run: Path) -> Path | None:
    """The newest whole checkpoint of a run whose listing is missing or damaged.

    Ray uploads a checkpoint and then writes the listing in place. A kill between the two would lose
    a first checkpoint; one within the second, or a full disk, would stop every later run.
    """
    listing = run / LISTING
    try:
        json.loads(listing.read_bytes())
        return None
    except FileNotFoundError:
        pass
    except ValueError:
        listing.unlink()
    for path in sorted(run.glob(f"checkpoint_*/{CHECKPOINT}"), reverse=True):
        try:
            load_checkpoint(path)
            return path
        except Exception:  # cut short too; torch has many names for that
            continue
    return None


def _state(checkpoint: Any, unlisted: Path | None) -> dict[str, Any] | None:
    """The state in the checkpoint that Ray knows, else in the unlisted one; None without either."""
    if checkpoint is None:
        return load_checkpoint(unlisted) if unlisted else None
    with checkpoint.as_directory() as folder:
        return load_checkpoint(Path(folder) / CHECKPOINT)


class RayTrainSession:
    """Checkpoints through Ray Train; the first worker writes, all report together."""

    def __init__(self, on_row: Callable[[dict[str, float]], None], unlisted: Path | None):
        import ray.train

        self.rank = ray.train.get_context().get_world_rank()
        self.on_row, self.unlisted = on_row, unlisted

    def average(self, row: dict[str, float]) -> dict[str, float]:
        import ray.train.torch
        import torch.distributed as dist

        if not dist.is_initialized():  # a single worker
            return row
        values = torch.tensor(list(row.values()), dtype=torch.float64)
        values = values.to(ray.train.torch.get_device())
        dist.all_reduce(values)
        return dict(zip(row, (values / dist.get_world_size()).tolist(), strict=True))

    def load(self) -> dict[str, Any] | None:
        import ray.train

        return _state(ray.train.get_checkpoint(), self.unlisted)

    def save(self, state: dict[str, Any], row: dict[str, float]) -> None:
        import ray.train

        if self.rank != 0:
            ray.train.report(row)
            return
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(state, Path(folder) / CHECKPOINT)
            ray.train.report(row, checkpoint=ray.train.Checkpoint.from_directory(folder))
        self.on_row(row)


def _worker(config: dict[str, Any]) -> None:
    """One data-parallel worker."""
    import ray.train
    import ray.train.torch

    set_up()  # again: Ray Train has set its loggers since the process began
    job: TrainingJob = config["job"]
    if (reason := job.failure.read()) is not None:  # a restart cannot mend what a user has to
        raise UserError(reason)
    params = Params.model_validate(job.params)
    if params.ray.use_gpu:  # a CPU repeats as it is
        repeatable()
    context = ray.train.get_context()
    # Workers that all end with the same error need not fail, which Ray would log at length; one
    # that fails alone must, or the others would wait for it.
    several = context.get_world_size() > 1
    with job.failure.noted(pass_on=lambda e: several and not isinstance(e, Diverged)):
        task = job.task(
            params,
            job.tokens_dir,
            job.num_classes,
            seed=job.seed,
            device=ray.train.torch.get_device(),
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            wrap=ray.train.torch.prepare_model,
            on_evaluate=config["on_evaluate"],
        )
        train(
            task,
            name=job.name,
            steps=params.training.steps,
            every=params.training.checkpoint_every,
            seed=job.seed,
            session=RayTrainSession(config["on_row"], config["unlisted"]),
        )
