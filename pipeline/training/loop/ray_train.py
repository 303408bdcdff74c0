"""A training under Ray Train: data-parallel workers, checkpoints in Ray's storage, or
sent home where the nodes share no folder.

The run's name carries the hash of everything it depends on, since Ray Train takes up whatever run
it finds under the same name and storage path.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from pipeline.runtime.device import worker_device
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line, innermost
from pipeline.runtime.limits import CHECKPOINTS
from pipeline.runtime.machines import note_workers, this_machine
from pipeline.runtime.parcels import Parcel, pack
from pipeline.runtime.ranks import Ranks
from pipeline.runtime.room import wait_for_nodes
from pipeline.runtime.site import here
from pipeline.training.loop.checkpoints import RunDirSession, newest_whole
from pipeline.training.loop.finite import Diverged, DivergedElsewhere
from pipeline.training.loop.job import TrainingJob
from pipeline.training.loop.ray_checkpoints import (
    checkpoints_now,
    remove_damaged,
    remove_passed,
    remove_unlisted,
    unlisted_checkpoint,
)
from pipeline.training.loop.ray_sessions import RayTrainSession, SentSession
from pipeline.training.loop.train import Session, train


def fit(
    job: TrainingJob, on_row: Callable[[dict[str, float]], None] = lambda row: None
) -> dict[str, Any]:
    """Train with the job's data-parallel workers, from the last checkpoint of a run of the same
    name.

    Args:
        on_row: called on the first worker with each new row of the history.

    Returns:
        The final checkpoint: {task, step, history, run}.

    Raises:
        UserError: training failed, with the worker's own message where it was a `UserError`.
    """
    from ray.train import TrainingFailedError
    from ray.train.torch import TorchTrainer

    apart, unlisted = here().apart, None
    if apart:
        RunDirSession(job.run_dir).load()  # a damaged checkpoint does not travel
    else:
        unlisted = _first_checkpoint(job.run_dir)
    job.failure.clear()
    wait_for_nodes()
    parcel = pack(job, unlisted, on_row)
    trainer = TorchTrainer(_worker, train_loop_config={"parcel": parcel}, **_ray_config(job))
    lost = None
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        lost = error
    except SystemExit as stopped:  # what Ray Train makes of Ctrl-C, without a word
        raise KeyboardInterrupt from stopped
    finally:
        parcel.take_back()
    if (reason := job.failure.read()) is not None:
        raise UserError(reason) from lost
    if lost:
        raise UserError(_why(job, lost)) from lost
    state = _final(job, apart, result.checkpoint, unlisted)
    for row in state["history"] if apart else ():  # was noted on another node
        on_row(row)
    return state


def _final(job: TrainingJob, apart: bool, listed: Any, unlisted: Path | None) -> dict[str, Any]:
    """The checkpoint of the last step, which a training always leaves; what it needs no more is
    removed.

    Args:
        listed, unlisted: as for `checkpoints_of`.
    """
    if apart:
        found = [RunDirSession(job.run_dir).path]
    else:
        found = checkpoints_now(job.run_dir, listed, unlisted)
    state, damaged = newest_whole(found)
    if state is None or damaged or state["step"] < job.steps:
        raise UserError(
            f"{job.name}: its last checkpoint is damaged; run again to go on from there"
        )
    if not apart:
        remove_passed(job.run_dir, found[0])
    return state


def _first_checkpoint(run: Path) -> Path | None:
    """Clear up what kills left of a run; the checkpoint to begin with, where Ray knows of none."""
    remove_damaged(run)
    unlisted = unlisted_checkpoint(run)
    if unlisted is None:
        remove_unlisted(run)
    return unlisted


def _why(job: TrainingJob, lost: Exception) -> str:
    """What a user is told of a training that Ray Train gave up."""
    if isinstance(inner := innermost(lost), UserError):
        return str(inner)
    reason = job.failure.reason(lost=in_a_line(lost))
    return f"{job.name}: a worker failed: {reason}; run again to go on from its checkpoint"


def _ray_config(job: TrainingJob) -> dict[str, Any]:
    """Workers, storage, restarts and checkpoints, as Ray Train takes them."""
    from ray.train import (
        CheckpointConfig,
        FailureConfig,
        LoggingConfig,
        RunConfig,
        ScalingConfig,
    )

    run, workers = job.run_dir, job.workers
    # Type checkers read version 1 of Ray Train, which lacks two of these arguments.
    return {
        "scaling_config": ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.use_gpu,
            resources_per_worker=workers.resources,
        ),
        "run_config": RunConfig(  # type: ignore[call-arg]
            name=run.name,
            storage_path=str(run.parent),
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=workers.max_failures, controller_failure_limit=3
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    }


def _worker(config: dict[str, Any]) -> None:
    """One data-parallel worker."""
    parcel: Parcel = config["parcel"]
    with parcel.opened() as (job, unlisted, on_row):
        _train(job, unlisted, on_row)


def _train(
    job: TrainingJob, unlisted: Path | None, on_row: Callable[[dict[str, float]], None]
) -> None:
    import ray.train
    import ray.train.torch

    if (reason := job.failure.read()) is not None:  # a restart cannot mend what a user has to
        raise UserError(reason)
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    job.failure.again()
    # Workers that all end with the same error need not fail, which Ray would log at length; one
    # that fails alone must, or the others would wait for it.
    with (
        job.failure.noted(
            pass_on=lambda e: ranks.workers > 1 and not isinstance(e, Diverged), shared=True
        ),
        suppress(DivergedElsewhere),
    ):
        worker_device(job.workers.use_gpu)  # there is one, and it repeats
        _note_workers(job, ranks)
        session: Session
        if here().apart:
            session = SentSession(job.run_dir, on_row, ranks)
        else:
            session = RayTrainSession(job.run_dir, on_row, unlisted, ranks, job.failure)
        session.who = job.workers.named
        train(
            job.recipe(ranks, ray.train.torch.get_device()),
            name=job.name,
            run=job.run,
            steps=job.steps,
            every=job.every,
            seed=job.seed,
            session=session,
        )


def _note_workers(job: TrainingJob, ranks: Ranks) -> None:
    machines = [this_machine()] * ranks.workers
    if ranks.workers > 1:
        torch.distributed.all_gather_object(machines, machines[0])
    if ranks.rank == 0:
        note_workers(Path(job.folder), machines)
