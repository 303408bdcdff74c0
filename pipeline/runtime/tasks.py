"""Independent jobs as Ray tasks, as many at once as the cluster has room for."""

from collections.abc import Callable, Iterable
from typing import Any

from pipeline.errors import UserError
from pipeline.params import Params


def run_tasks(
    function: Callable[[Any], None],
    jobs: Iterable[Any],
    params: Params,
    *,
    on_done: Callable[[Any], None],
) -> None:
    """Run function(job) for each job, on the cluster that was joined; what finished before a
    failure is kept.

    Args:
        function: importable, leaves its result in files; `UserError` is for the user.
        on_done: called here with each job that ended well.

    Raises:
        UserError: a job failed, with its own line; the others have ended.
    """
    import ray

    options = {
        "num_cpus": params.ray.cpus_per_worker,
        "num_gpus": int(params.ray.use_gpu),
        "max_retries": params.ray.max_failures,
    }
    task = ray.remote(_run).options(**options)
    pending = {task.remote(function, job): job for job in jobs}
    failure = None
    while pending:
        (finished,), _ = ray.wait(list(pending), num_returns=1)
        job = pending.pop(finished)
        try:
            failure = failure or ray.get(finished)
            if failure is None:
                on_done(job)
        except ray.exceptions.RayError as error:
            failure = failure or str(error).strip().splitlines()[-1]
    if failure:
        raise UserError(f"{failure}; what is finished is kept, run again to go on")


def _run(function: Callable[[Any], None], job: Any) -> str | None:
    """The line of a `UserError`, which Ray would log at length if it were raised."""
    try:
        function(job)
    except UserError as error:
        return str(error)
    return None
