"""Starts or resumes a training run, in this process or with data-parallel workers under Ray Train.
Also runs several jobs as trials of Ray Tune."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.data.ranks import Ranks
from pipeline.runtime.device import worker_device
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line, innermost
from pipeline.runtime.files import remove_temporary
from pipeline.runtime.limits import CHECKPOINTS
from pipeline.runtime.node_checkout import checkout, enter
from pipeline.runtime.progress import Countdown
from pipeline.runtime.ray_cluster import NODES, join_ray, may_grow, require_resources, wait_longer
from pipeline.runtime.stage import Stage
from pipeline.runtime.storage import storage
from pipeline.runtime.trials import Needs, note_machines, run_trials, this_machine
from pipeline.training.loop.checkpoints import (
    CHECKPOINT,
    RayTrainCheckpoints,
    RunDirCheckpoints,
    State,
    load_checkpoint,
)
from pipeline.training.loop.divergence import Diverged
from pipeline.training.loop.training import Training, Workers, train


def join_with(workers: Workers, key: str) -> None:
    """Connect to Ray for training. Raises a `UserError` if the connection fails, or if the cluster
    is too small for the workers and has no autoscaler. The message names `key`, the param with the
    number of workers."""
    join_ray()
    key = key if workers.count > 1 else "ray.cpus_per_worker"
    require_resources(workers.count, workers.cpus, workers.use_gpu, key)


def run_jobs(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    key: str,
    stage: Stage,
    what: str,
    on_end: Callable[[Any], None] = lambda job: None,
) -> None:
    """Run `function(job)` for each unfinished job, as trials of Ray Tune.

    Args:
        jobs: objects with `name`, `folders`, `workers`, `finished`, and `log` (MLflow run or None).
        key: name of the param that sets the number of workers per job.
        what: plural name of the jobs in messages, such as "training runs".
        on_end: called with each finished job, including jobs finished in an earlier run.
    """
    pending = [job for job in jobs if not job.finished]
    for job in jobs:
        if job.finished:
            on_end(job)
    count = Countdown(stage.name, what, len(jobs), len(pending))

    def done(job: Any, value: object) -> None:
        on_end(job)
        count.done(job.name)

    if pending:
        workers: Workers = pending[0].workers
        join_with(workers, key)
        needs = Needs(
            workers=workers.count,
            resources=workers.resources,
            max_failures=workers.max_failures,
            folder=stage.folder(),
            waits=workers.under_ray_train,
        )
        try:
            run_trials(function, pending, needs, stage=stage.name, on_done=done)
        finally:
            for job in pending:
                if job.log and not job.finished:
                    job.log.finish(ok=False)


def run_training(training: Training) -> Any:
    """Train in this process, or with workers under Ray Train. Returns what `training.finish`
    returns. Raises a `UserError` if training failed; the last checkpoint is kept."""
    started = time.monotonic()
    if training.log:
        training.log.begin()
    if training.workers.under_ray_train:
        state = _fit(training)
    else:
        task = training.task(Ranks(), worker_device(training.workers.use_gpu))
        state = train(training, task, RunDirCheckpoints(training.run_dir))
    return training.finish(state, round(time.monotonic() - started, 2))


def _fit(training: Training) -> State:
    """Train under Ray Train, which resumes an earlier run with the same name and storage path. Run
    names contain a hash of everything that training depends on."""
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train import TrainingFailedError as Failed
    from ray.train.torch import TorchTrainer

    workers, run = training.workers, training.run_dir
    remove_temporary(run)  # killed workers may have left temporary files
    if may_grow():
        wait_longer(NODES)
    # Type checkers see version 1 of Ray Train, which lacks two arguments and returns nothing.
    worker: Any = _worker
    trainer = TorchTrainer(
        worker,
        train_loop_config={"training": training, "checkout": checkout()},
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.use_gpu,
            resources_per_worker=workers.resources,
        ),
        run_config=RunConfig(  # type: ignore[call-arg]
            **_place(run),
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=workers.max_failures, controller_failure_limit=3
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        result: Any = trainer.fit()
    except Failed as error:
        raise _failed(training, error) from error
    except SystemExit as stopped:  # Ray Train raises SystemExit for Ctrl-C
        raise KeyboardInterrupt from stopped
    if "error" in result.return_value:
        raise UserError(*result.return_value["error"])
    note_machines(result.return_value["machines"])
    with result.checkpoint.as_directory() as folder:
        return load_checkpoint(Path(folder, CHECKPOINT))


def _place(run: Path) -> dict[str, Any]:
    """Arguments for Ray Train's `RunConfig`: the run's name, and where to store the run. The
    storage is the object store that the param `ray.storage_path` names, else the run directory."""
    store = storage()
    if store is None:
        return {"name": run.name, "storage_path": str(run.parent)}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return {
        "name": "-".join(run.relative_to(store.runs).parts),
        "storage_path": f"{store.folder}/ray-train",
        "storage_filesystem": PyFileSystem(FSSpecHandler(store.files)),
    }


def _failed(training: Training, error: Exception) -> BaseException:
    """The error to raise after Ray Train gives up: a worker's `UserError` if one exists, else
    another error in a worker's code, else a `UserError` that says that a worker was lost."""
    workers = getattr(error, "worker_failures", {}).values()
    found = [innermost(failure) for failure in workers] or [innermost(error)]
    own = [one for one in found if not type(one).__module__.startswith("ray.")]
    reason = f"a worker was lost ({in_a_line(found[0])})"
    lost = UserError(training.name, reason, "run the stage again to resume")
    return min(own, key=lambda one: not isinstance(one, UserError), default=lost)


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    """Train as one of Ray Train's data-parallel workers. Returns {machines}, the machines of all
    workers, or {error}, the arguments of a `Diverged` error. Raises all other errors, so that Ray
    Train stops all workers."""
    import ray.train
    import ray.train.torch

    enter(config["checkout"])
    training: Training = config["training"]
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    worker_device(training.workers.use_gpu)  # fails without a GPU; sets deterministic algorithms
    machines = [this_machine()] * ranks.workers
    if ranks.workers > 1:
        torch.distributed.all_gather_object(machines, machines[0])
    try:
        task = training.task(ranks, ray.train.torch.get_device())
        train(training, task, RayTrainCheckpoints(training.run_dir, ranks))
    except Diverged as error:
        return {"error": error.args}
    return {"machines": machines}
