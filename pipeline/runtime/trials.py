"""Runs independent jobs as Ray Tune trials, and records the machines that did a stage's work."""

import os
import platform
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import PassingError, UserError
from pipeline.runtime.failures import in_a_line, innermost
from pipeline.runtime.node_checkout import KEYS, Checkout, checkout, enter
from pipeline.runtime.ray_cluster import may_grow, room_for, wait_longer
from pipeline.runtime.storage import download

Machine = dict[str, str]
QUEUE = 365 * 86400.0  # seconds a trial waits for workers: other jobs may hold the nodes for weeks
_machines: list[Machine] = []  # machines that worked for this process


def this_machine() -> Machine:
    """This process's host, device and library versions. Call `pick_device` first."""
    import torch

    from pipeline.runtime.device import computing_on

    return {
        "host": platform.node(),
        "device": computing_on(),
        "python": platform.python_version(),
        "torch": torch.__version__,  # includes the build
        "ray": version("ray"),
    }


def note_machines(machines: Iterable[Machine]) -> None:
    """Record machines on which workers of this process ran."""
    _machines.extend(machine for machine in machines if machine not in _machines)


def machines() -> list[Machine]:
    """The machines on which workers of this process ran; without workers, this machine."""
    return sorted(_machines or [this_machine()], key=lambda machine: list(machine.items()))


@dataclass(frozen=True)
class Needs:
    """The resources and settings of a group of trials."""

    workers: int  # workers per trial
    resources: Mapping[str, float]  # resources per worker, with Ray's names
    max_failures: int  # maximum restarts of a trial that lost a worker
    folder: Path  # absolute path; holds Tune's own files while Tune runs
    waits: bool = False  # trials only wait for their workers, which Ray Train starts


def run_trials(
    function: Callable[[Any], Any],
    trials: Sequence[Any],
    needs: Needs,
    stage: str,
    on_done: Callable[[Any, Any], None],
) -> None:
    """Run `function(trial)` for each trial, as many at once as fit into the cluster. A failed trial
    does not stop the others.

    Args:
        function: an importable function; its return value is pickled back to this process.
        trials: picklable values, each with a unique `name`, and with `folders` (the run directories
            that the trial reads and writes).
        on_done: called in this process with each finished trial and the function's value.

    Raises:
        Exception: a trial or its `on_done` call failed; a `UserError` if the user can correct it.
    """
    from ray.exceptions import RayError, RayTaskError

    ended: dict[str, Exception | None] = {}  # name of a trial -> error, or None
    stopped, folder = "the trial did not end", needs.folder / "tune"
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
    try:
        _tuner(function, trials, needs, folder, on_done, ended).fit()
    except Exception as failed:  # Tune raises many types when the disk is full
        stopped = f"Ray Tune failed ({in_a_line(failed)})"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for trial in trials:
        if (error := ended.get(trial.name, UserError(stopped))) is None:
            continue
        subject, reason = f"{stage}: trial {trial.name} failed", in_a_line(error)
        if isinstance(error, RayError) and not isinstance(error, RayTaskError):
            reason = f"a worker was lost: {reason}"
        elif not isinstance(innermost(error), UserError):
            print(subject, flush=True)
            raise error
        raise UserError(subject, reason, "run again to resume (finished trials are kept)")


def _tuner(
    function: Callable[[Any], Any],
    trials: Sequence[Any],
    needs: Needs,
    folder: Path,
    on_done: Callable[[Any, Any], None],
    ended: dict[str, Exception | None],
) -> Any:
    from ray import tune
    from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

    # A private API. Tune would put keys into its workers' runtime environment, which Ray logs.
    ENV_VARS_TO_PROPAGATE.difference_update(KEYS)
    by_name, project = {trial.name: trial for trial in trials}, checkout()
    grows = may_grow()  # then all trials start at once, and wait for nodes

    def trainable(config: dict[str, Any]) -> None:
        if needs.waits and grows:
            wait_longer(QUEUE)
        result = _call(project, function, by_name[config["trial"]])
        if isinstance(result.get("error"), PassingError):
            raise result["error"]  # Ray restarts the trial
        tune.report(result)

    class Watch(tune.Callback):  # Tune only logs errors from callbacks
        def on_trial_complete(self, iteration, trials, trial, **info):
            name, result = trial.config["trial"], trial.last_result
            ended[name] = result.get("error")
            if "error" not in result:
                note_machines(result["machines"])
                try:
                    download(*by_name[name].folders)
                    for run in by_name[name].folders:  # on NFS, reveals other machines' files
                        list(os.walk(run))
                    on_done(by_name[name], result["value"])
                except Exception as error:
                    ended[name] = error

        def on_experiment_end(self, trials, **info):  # only now are the error files complete
            for trial in trials:
                error = trial.get_pickled_error() or trial.get_error()
                if error and trial.status == trial.ERROR:
                    ended[trial.config["trial"]] = error

    # Tune requires each trial to reserve something. A trial that only waits for workers reserves a
    # little memory: if the trial reserved a CPU, its workers might never find room.
    own: dict[str, float] = {"memory": 2**20} if needs.waits else dict(needs.resources)
    at_once = len(trials) if grows else max(1, room_for(needs.resources) // needs.workers)
    return tune.Tuner(
        tune.with_resources(trainable, own),
        param_space={"trial": tune.grid_search(list(by_name))},
        tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=at_once),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            verbose=0,
            callbacks=[Watch()],
            failure_config=tune.FailureConfig(max_failures=needs.max_failures),
        ),
    )


def run_beside(
    function: Callable[..., Any], *arguments: Any, resources: Mapping[str, float]
) -> Any:
    """Run an importable function in a Ray task that reserves `resources`, and return the function's
    value. The caller must not have reserved CPUs or GPUs. A `UserError` of the function is raised
    here."""
    import ray

    cpus, gpus = (resources.get(kind, 0) for kind in ("CPU", "GPU"))
    # Resources are given here and not by `options`, so that Ray never reuses a process that had a
    # GPU. By default, the task would run in the trial's placement group, which has no room.
    task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, scheduling_strategy="DEFAULT")(_call)
    result = ray.get(task.remote(checkout(), function, *arguments))
    if "error" in result:
        raise result["error"]
    note_machines(result["machines"])
    return result["value"]


def _call(project: Checkout, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Call a function in a worker. Returns the `value` of the function and the `machines` that did
    the work, or only the `error` if the function raises a `UserError`."""
    _machines.clear()  # forget the previous job's machines
    try:
        enter(project)
        return {"value": function(*arguments), "machines": machines()}
    except UserError as error:
        return {"error": error}
