"""Independent jobs as Ray tasks, as many at once as the cluster has room for."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import Failure, in_a_line
from pipeline.runtime.parcels import Parcel, pack


class Job(Protocol):
    """Plain values that travel to a worker."""

    @property
    def failure(self) -> Failure: ...


AnyJob = TypeVar("AnyJob", bound=Job)


def run_tasks(
    function: Callable[[AnyJob], None],
    jobs: Iterable[AnyJob],
    *,
    cpus: int,
    gpus: int,
    max_retries: int,
    on_done: Callable[[AnyJob], None],
) -> None:
    """Run function(job) for each job, on the cluster that was joined; what finished before a
    failure is kept.

    Args:
        function: importable, leaves its result in files; `UserError` is for the user.
        cpus, gpus: how many of each a job occupies.
        max_retries: how often a job whose worker was lost is started again.
        on_done: called here with each job that ended well.

    Raises:
        UserError: a job failed; the message is the line that it left. All other jobs have ended.
    """
    import ray

    # Given here, and not by `options`: then a process that had a GPU is never used again.
    task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=max_retries)(_run)
    jobs = list(jobs)
    for job in jobs:
        job.failure.clear()
    pending = {task.remote(function, pack(job)): job for job in jobs}
    failure = None
    while pending:
        (finished,), _ = ray.wait(list(pending), num_returns=1)
        job = pending.pop(finished)
        try:
            ray.get(finished)
            failed = job.failure.read()
            if failed is None:
                on_done(job)
        except ray.exceptions.RayError as error:
            failed = job.failure.reason(lost=in_a_line(error))
        failure = failure or failed
    if failure:
        raise UserError(f"{failure}; what is finished is kept, run again to go on")


def _run(function: Callable[[AnyJob], None], parcel: Parcel) -> None:
    with parcel.opened() as (job,), job.failure.noted():
        function(job)
