"""Independent jobs as trials of Ray Tune, and the machines that did a stage's work."""

import platform
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from json import JSONDecodeError
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from pipeline.runtime.errors import PassingError, UserError
from pipeline.runtime.failures import in_a_line, innermost
from pipeline.runtime.node_checkout import Checkout, checkout
from pipeline.runtime.ray_cluster import may_grow, room_for, wait_longer
from pipeline.runtime.storage import download

Machine = dict[str, str]

_machines: list[Machine] = []  # that worked for this process


def this_machine() -> Machine:
    """Host, device and versions of this process, which has picked its device."""
    import torch

    from pipeline.runtime.device import computing_on

    return {
        "host": platform.node(),
        "device": computing_on(),
        "python": platform.python_version(),
        "torch": torch.__version__,  # with its build
        "ray": version("ray"),
    }


def note_machines(machines: Iterable[Machine]) -> None:
    """Remember the machines of workers that work for this process."""
    _machines.extend(machine for machine in machines if machine not in _machines)


def machines() -> list[Machine]:
    """The machines that worked for this process: those of its workers, or its own."""
    found = _machines or [this_machine()]
    return sorted(found, key=lambda machine: (machine["host"], sorted(machine.items())))


# What Tune raises if it cannot write its notes, or reads one that was cut short.
UNKEPT = (OSError, EOFError, UnpicklingError, JSONDecodeError)
QUEUE = 365 * 86400.0  # seconds that a trial waits for its workers: others may have them for weeks


@dataclass(frozen=True)
class Needs:
    """The resources of each trial, and the settings of all."""

    workers: int  # of each trial
    resources: Mapping[str, float]  # of each worker, as Ray names them
    max_failures: int  # restarts of a trial whose worker was lost
    folder: Path  # absolute; Tune keeps its notes there while it runs
    waits: bool = False  # a trial only waits for its workers, which Ray Train starts


def run_trials(
    function: Callable[[Any], Any],
    trials: Sequence[Any],
    needs: Needs,
    *,
    stage: str,
    on_done: Callable[[Any, Any], None],
) -> None:
    """Run `function(trial)` for each trial, as many at once as the cluster has room for.

    Args:
        function: importable; its value travels back to this process.
        trials: values that can be pickled, each with a unique `name`, and `folders`, the run
            directories that it reads and writes.
        stage: names the stage in messages.
        on_done: called in this process with each finished trial and its value, whatever happens to
            the other trials.

    Raises:
        UserError: a trial failed or did not finish, or `on_done` raised it.
        Exception: an unexpected error of a trial.
    """
    watch, notes = _watch(trials, on_done), needs.folder / "tune"
    shutil.rmtree(notes, ignore_errors=True)  # of a process that was killed
    reason = "it did not end"
    try:
        _tuner(function, trials, needs, notes, watch).fit()
    except UNKEPT as error:
        reason = f"Ray Tune cannot keep its notes in {notes} ({in_a_line(error)}); make room"
    finally:
        shutil.rmtree(notes, ignore_errors=True)
    if watch.error:
        raise watch.error
    for trial in trials:
        if trial.name not in watch.done:
            _fail(f"{stage}: trial {trial.name} failed", watch.failed.get(trial.name, reason))


def _fail(subject: str, reason: Any) -> None:
    """Raise the error of a trial.

    Args:
        reason: the line for the user, or Ray's error.
    """
    from ray.exceptions import RayTaskError

    if isinstance(reason, RayTaskError) and not isinstance(innermost(reason), UserError):
        print(subject, flush=True)
        raise reason
    if isinstance(reason, Exception):
        lost = "" if isinstance(reason, RayTaskError) else "a worker was lost: "
        reason = f"{lost}{in_a_line(reason)}"
    raise UserError(subject, reason, "finished trials are kept, run again to go on")


def _tuner(
    function: Callable[[Any], Any], trials: Sequence[Any], needs: Needs, notes: Path, watch: Any
) -> Any:
    from ray import tune

    by_name, project = {trial.name: trial for trial in trials}, checkout()
    grows = may_grow()  # then all trials ask for room, and wait for it

    def trainable(config: dict[str, Any]) -> None:
        if needs.waits and grows:
            wait_longer(QUEUE)
        result = _call(project, function, by_name[config["trial"]])
        if isinstance(error := result.get("error"), PassingError):
            raise error  # Ray tries again
        tune.report(result)

    # A trial of Ray Train only waits for its workers. If it reserved even a part of a CPU, they
    # might not fit beside it and would wait forever. It reserves a little memory instead (Tune
    # requires something), and the number of trials at once is limited.
    own: dict[str, float] = {"memory": 2**20} if needs.waits else dict(needs.resources)
    at_once = len(trials) if grows else max(1, room_for(needs.resources) // needs.workers)
    return tune.Tuner(
        tune.with_resources(trainable, own),
        param_space={"trial": tune.grid_search(list(by_name))},
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            max_concurrent_trials=at_once,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            storage_path=str(notes),
            verbose=0,
            callbacks=[watch],
            stop=watch,
            failure_config=tune.FailureConfig(max_failures=needs.max_failures),
        ),
    )


def _watch(trials: Sequence[Any], on_done: Callable[[Any, Any], None]) -> Any:
    """The callback that collects what trials return. Tune only logs what a callback raises: a
    `UserError` of `on_done` is therefore kept as `error`, and stops all trials."""
    from ray import tune

    by_name = {trial.name: trial for trial in trials}

    class Watch(tune.Callback, tune.Stopper):
        def __init__(self) -> None:
            self.error: UserError | None = None
            self.done = set[str]()
            self.failed: dict[str, Any] = {}  # the reason by the trial's name

        def on_trial_complete(self, iteration, trials, trial, **info):
            name, result = trial.config["trial"], trial.last_result
            if self.error or not result:  # all trials were stopped
                return
            if "error" in result:
                self.failed[name] = str(result["error"])
                return
            self.done.add(name)
            note_machines(result["machines"])
            try:
                download(*by_name[name].folders)
                on_done(by_name[name], result["value"])
            except UserError as error:
                self.error = error

        def on_trial_error(self, iteration, trials, trial, **info):
            self.failed[trial.config["trial"]] = trial.get_pickled_error() or trial.get_error()

        def __call__(self, trial_id, result) -> bool:
            return False

        def stop_all(self) -> bool:
            return self.error is not None

    return Watch()


def run_beside(
    function: Callable[..., Any], *arguments: Any, resources: Mapping[str, float]
) -> Any:
    """Run `function(*arguments)` in a process with a worker's resources, wait for it, and return
    its value. For a trial that only waits for its workers, and has no resources itself.

    Args:
        function: importable.

    Raises:
        UserError: the function raised it.
    """
    import ray

    cpus, gpus = (resources.get(kind, 0) for kind in ("CPU", "GPU"))
    # Given here, and not by `options`: then a process that had a GPU is never used again. The
    # trial's placement group, which is the default, has no room for it.
    task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, scheduling_strategy="DEFAULT")(_call)
    result = ray.get(task.remote(checkout(), function, *arguments))
    if "error" in result:
        raise result["error"]
    note_machines(result["machines"])
    return result["value"]


def _call(project: Checkout, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Call a function in a worker.

    Returns:
        Its `value`, and the `machines` that worked for it; or the `error`, if that is the user's.
    """
    _machines.clear()  # of the job that this process did before
    try:
        project.enter()
        return {"value": function(*arguments), "machines": machines()}
    except UserError as error:
        return {"error": error}
