"""A training under Ray Train: data-parallel workers, checkpoints in Ray's storage, or
sent home where the nodes share no folder.

The run's name carries the hash of everything it depends on, since Ray Train takes up whatever run
it finds under the same name and storage path.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.runtime.device import worker_device
from pipeline.runtime.errors import PassingError, UserError
from pipeline.runtime.failures import bug, in_a_line, innermost
from pipeline.runtime.limits import CHECKPOINTS
from pipeline.runtime.parcels import Parcel, pack
from pipeline.runtime.process import set_up
from pipeline.runtime.ranks import Ranks
from pipeline.runtime.room import wait_for_nodes
from pipeline.runtime.site import here
from pipeline.runtime.trials import Machine, note_machines, this_machine
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
    wait_for_nodes()
    parcel = pack(job, unlisted, on_row)
    # Type checkers read version 1 of Ray Train, in which workers return nothing.
    worker: Any = _worker
    trainer = TorchTrainer(worker, train_loop_config={"parcel": parcel}, **_ray_config(job))
    try:
        result: Any = trainer.fit()
    except TrainingFailedError as lost:
        raise UserError(_why(job, lost)) from lost
    except SystemExit as stopped:  # what Ray Train makes of Ctrl-C, without a word
        raise KeyboardInterrupt from stopped
    finally:
        parcel.take_back()
    workers, said = result.return_value  # those of the first worker
    note_machines(workers)
    if said:
        raise UserError(said)
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
    of_workers = getattr(lost, "worker_failures", {}).values()
    found = [innermost(error) for error in of_workers] or [innermost(lost)]
    # The others have often only lost the one that failed.
    inner = next((error for error in found if isinstance(error, UserError)), found[0])
    if isinstance(inner, UserError):
        return str(inner)
    lost_worker = type(inner).__module__.startswith("ray.")
    reason = in_a_line(inner) if lost_worker else bug(lost, job.name.replace("/", "-"))
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


def _worker(config: dict[str, Any]) -> tuple[list[Machine], str]:
    """One data-parallel worker; returns the machines of all, and the error that all have met."""
    from ray.train.v2._internal.execution import context

    set_up()  # again: Ray Train has set its loggers since the process began
    # It logs a page where a checkpoint cannot be written, of which the stage tells in a line.
    logging.getLogger(context.__file__).addFilter(lambda record: False)
    parcel: Parcel = config["parcel"]
    with parcel.opened() as (job, unlisted, on_row):
        return _train(job, unlisted, on_row)


def _train(
    job: TrainingJob, unlisted: Path | None, on_row: Callable[[dict[str, float]], None]
) -> tuple[list[Machine], str]:
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    machines, said = list[Machine](), ""
    # An error that all workers meet together is returned: Ray would try again. One that fails alone
    # must raise, or the others would wait for it.
    try:
        worker_device(job.workers.use_gpu)  # there is one, and it repeats
        machines = _gathered(this_machine(), ranks)
        session: Session
        if here().apart:
            session = SentSession(job.run_dir, on_row, ranks)
        else:
            session = RayTrainSession(job.run_dir, on_row, unlisted, ranks)
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
    except PassingError:
        raise
    except UserError as error:
        if ranks.workers > 1 and not isinstance(error, Diverged):
            raise
        own = "" if isinstance(error, DivergedElsewhere) else str(error)
        said = next(filter(None, _gathered(own, ranks)))
    return machines, said


def _gathered(own: Any, ranks: Ranks) -> list[Any]:
    """What each worker has given, in order."""
    found = [own] * ranks.workers
    if ranks.workers > 1:
        torch.distributed.all_gather_object(found, own)
    return found
