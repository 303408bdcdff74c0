"""A training under Ray Train: data-parallel workers, with checkpoints in Ray Train's storage.

The run's name carries the hash of everything it depends on, since Ray Train takes up whatever run
it finds under the same name and storage path.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.data.ranks import Ranks
from pipeline.runtime.device import worker_device
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line, innermost
from pipeline.runtime.files import remove_temporary, temporary_beside
from pipeline.runtime.limits import CHECKPOINTS
from pipeline.runtime.node_checkout import checkout, enter
from pipeline.runtime.ray_cluster import NODES, may_grow, wait_longer
from pipeline.runtime.storage import storage
from pipeline.runtime.trials import note_machines, this_machine
from pipeline.training.loop.checkpoints import CHECKPOINT, load_checkpoint, save_checkpoint
from pipeline.training.loop.finite import Diverged
from pipeline.training.loop.job import TrainingJob
from pipeline.training.loop.train import train


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
        UserError: training failed; with the worker's own message if it raised a `UserError`.
    """
    from ray.train import TrainingFailedError
    from ray.train.torch import TorchTrainer

    remove_temporary(job.run_dir)  # of workers that were killed
    if may_grow():
        wait_longer(NODES)
    config = {"job": job, "on_row": on_row, "checkout": checkout()}
    try:
        # Type checkers read version 1 of Ray Train, in which workers return nothing.
        worker: Any = _worker
        result: Any = TorchTrainer(worker, train_loop_config=config, **_ray_config(job)).fit()
    except TrainingFailedError as error:
        raise _failed(job, error) from error
    except SystemExit as stopped:  # what Ray Train makes of Ctrl-C
        raise KeyboardInterrupt from stopped
    if "error" in result.return_value:
        raise UserError(*result.return_value["error"])
    note_machines(result.return_value["machines"])
    with result.checkpoint.as_directory() as folder:
        return load_checkpoint(Path(folder, CHECKPOINT))


def _failed(job: TrainingJob, error: Exception) -> BaseException:
    """What is raised of a training that Ray Train gave up: the workers' own error if it is not
    Ray's, since the other workers have often only lost the one that failed."""
    workers = getattr(error, "worker_failures", {}).values()
    found = [innermost(failure) for failure in workers] or [innermost(error)]
    own = [one for one in found if not type(one).__module__.startswith("ray.")]
    for one in sorted(own, key=lambda one: not isinstance(one, UserError)):
        return one
    return UserError(job.name, f"a worker was lost ({in_a_line(found[0])})", "run again to resume")


def _ray_config(job: TrainingJob) -> dict[str, Any]:
    """Workers, storage, restarts and checkpoints, as Ray Train takes them."""
    from ray.train import (
        CheckpointConfig,
        FailureConfig,
        LoggingConfig,
        RunConfig,
        ScalingConfig,
    )

    workers = job.workers
    # Type checkers read version 1 of Ray Train, which lacks two of these arguments.
    return {
        "scaling_config": ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.use_gpu,
            resources_per_worker=workers.resources,
        ),
        "run_config": RunConfig(  # type: ignore[call-arg]
            **_place(job.run_dir),
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=workers.max_failures, controller_failure_limit=3
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    }


def _place(run: Path) -> dict[str, Any]:
    """The name and storage of a run: its run directory, or the store if there is one."""
    store = storage()
    if store is None:
        return {"name": run.name, "storage_path": str(run.parent)}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return {
        "name": "-".join(run.relative_to(store.runs).parts),
        "storage_path": f"{store.folder}/ray-train",
        "storage_filesystem": PyFileSystem(FSSpecHandler(store.files)),
    }


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    """One data-parallel worker; returns its error or the machines of all workers.

    Workers that all end with the same error return it. One that fails alone raises it, or the
    others would wait for it.
    """
    import ray.train
    import ray.train.torch

    enter(config["checkout"])
    job: TrainingJob = config["job"]
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    worker_device(job.workers.use_gpu)  # fails without a GPU; sets deterministic algorithms
    machines = [this_machine()] * ranks.workers
    if ranks.workers > 1:
        torch.distributed.all_gather_object(machines, machines[0])
    try:
        train(
            job.recipe(ranks, ray.train.torch.get_device()),
            name=job.name,
            run=job.run,
            steps=job.steps,
            every=job.every,
            seed=job.seed,
            session=RayTrainSession(job, config["on_row"], ranks),
        )
    except Diverged as error:
        return {"error": error.args}
    return {"machines": machines}


class RayTrainSession:
    """Checkpoints through Ray Train; the first worker writes, all report together."""

    def __init__(self, job: TrainingJob, on_row: Callable[[dict[str, float]], None], ranks: Ranks):
        self.folder, self.on_row, self.ranks, self.rank = job.run_dir, on_row, ranks, ranks.rank
        self.who: Mapping[str, float] = job.workers.named

    def average(self, row: dict[str, float]) -> dict[str, float]:
        values = torch.tensor(list(row.values()), dtype=torch.float64)
        means = self.ranks.total(values) / self.ranks.workers
        return dict(zip(row, means.tolist(), strict=True))

    def load(self) -> dict[str, Any] | None:
        import ray.train

        if (checkpoint := ray.train.get_checkpoint()) is None:
            return None
        with checkpoint.as_directory() as folder:
            return load_checkpoint(Path(folder, CHECKPOINT))

    def save(self, state: dict[str, Any], row: dict[str, float]) -> None:
        import ray.train

        checkpoint = None
        if self.rank == 0:
            self.on_row(row)  # first: a kill in between repeats the row, which is logged once
            folder = temporary_beside(self.folder / CHECKPOINT)
            save_checkpoint(state, folder / CHECKPOINT)
            checkpoint = ray.train.Checkpoint(str(folder))
        ray.train.report(
            row,
            checkpoint=checkpoint,
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
        )

    def settle(self) -> None:
        """Ray Train waits for the last upload itself."""
