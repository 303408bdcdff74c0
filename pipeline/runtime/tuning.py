"""Independent trainings as trials of Ray Tune, as many at once as the cluster has room for.

A trial's process does its work itself, or waits for a Ray Train run of its own.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol, TypeVar

from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import Failure, in_a_line
from pipeline.runtime.files import look_again
from pipeline.runtime.parcels import call, pack
from pipeline.runtime.room import may_grow, room_for, wait_longer


class Trial(Protocol):
    """Plain values that travel to a worker."""

    @property
    def name(self) -> str:
        """Tells it from the others."""

    @property
    def failure(self) -> Failure: ...

    @property
    def finished(self) -> bool:
        """Whether all that it makes is there."""


# What Tune raises of notes that it could not write, or finds cut short.
UNKEPT = (OSError, EOFError, UnpicklingError, JSONDecodeError)

AnyTrial = TypeVar("AnyTrial", bound=Trial)

QUEUE = 365 * 86400.0  # seconds that a trial waits for its workers: others may have them for weeks


@dataclass(frozen=True)
class Needs:
    """What each trial occupies, and what all of them share."""

    workers: int  # of each trial
    resources: Mapping[str, float]  # of each worker, as Ray names them
    max_failures: int  # how often a trial whose worker was lost is started again
    folder: Path  # absolute, of this process alone: Tune keeps its notes there while it works
    waits: bool = False  # a trial's process only waits for its workers, which Ray Train starts


def run_trials(
    function: Callable[[AnyTrial], None],
    trials: Sequence[AnyTrial],
    needs: Needs,
    *,
    stage: str,
    on_done: Callable[[AnyTrial], None],
) -> None:
    """Run function(trial) for each trial. What a finished one wrote stays, whatever happens to the
    others.

    Args:
        function: importable; leaves what it makes in files; `UserError` is for the user.
        stage: names the stage in messages.
        on_done: called here, once, with each trial that ended well.

    Raises:
        UserError: a trial failed or did not finish, or `on_done` raised it.
    """
    watch = _watch(trials, on_done)
    for trial in trials:
        trial.failure.clear()
    notes = needs.folder / "tune"
    shutil.rmtree(notes, ignore_errors=True)  # of a process that was killed
    lost = "its worker was lost"
    try:
        _tuner(function, trials, needs, notes, watch).fit()
    except UNKEPT as error:  # a full disk: Tune cannot write its notes, or read them
        lost = f"Ray Tune cannot keep its notes in {notes} ({in_a_line(error)}); make room"
    finally:
        shutil.rmtree(notes, ignore_errors=True)
    if watch.error:
        raise watch.error
    for trial in trials:
        watch.look_at(trial)  # of which Tune may not tell: it could not keep its notes
    for trial in trials:
        if not trial.finished:
            raise UserError(
                f"{stage}: trial {trial.name} failed: "
                f"{trial.failure.reason(lost)}; finished trials are kept, run again to go on"
            )


def _tuner(
    function: Callable[[AnyTrial], None],
    trials: Sequence[AnyTrial],
    needs: Needs,
    notes: Path,
    watch: Any,
) -> Any:
    from ray import tune

    parcels = {trial.name: pack(trial) for trial in trials}
    grows = may_grow()  # then all trials ask for room, and wait for it

    def trainable(config: dict) -> None:
        if needs.waits and grows:
            wait_longer(QUEUE)
        with parcels[config["trial"]].opened() as (trial,):
            with trial.failure.noted():
                function(trial)
            finished = trial.finished
        tune.report({"finished": finished})

    return tune.Tuner(
        tune.with_resources(trainable, _trial_resources(needs)),
        param_space={"trial": tune.grid_search(list(parcels))},
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            max_concurrent_trials=len(trials) if grows else _concurrent(needs),
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


def _watch(trials: Sequence[AnyTrial], on_done: Callable[[AnyTrial], None]) -> Any:
    """The callback for trials that end. Tune only logs what a callback raises; a `UserError` is
    therefore kept as its `error`, and all trials are stopped."""
    from ray import tune

    by_name = {trial.name: trial for trial in trials}
    seen = set[str]()

    class Watch(tune.Callback, tune.Stopper):
        error: UserError | None = None

        def on_trial_complete(self, iteration, trials, trial, **info):
            if not self.error:
                try:
                    self.look_at(by_name[trial.config["trial"]])
                except UserError as error:
                    self.error = error

        def look_at(self, trial: AnyTrial) -> None:
            look_again(Path(trial.failure.folder))
            if trial.finished and trial.name not in seen:
                seen.add(trial.name)
                on_done(trial)

        def __call__(self, trial_id, result) -> bool:
            return False

        def stop_all(self) -> bool:
            return self.error is not None

    return Watch()


def _trial_resources(needs: Needs) -> dict[str, float]:
    """The resources that a trial's process reserves.

    A trial that is a Ray Train run only waits for its workers. If it reserved even a part of a CPU,
    its workers might not fit beside it, and would wait for ever. It therefore reserves a little
    memory only (Tune requires something); `_concurrent` limits the number of such trials, or they
    queue.
    """
    return {"memory": 2**20} if needs.waits else dict(needs.resources)


def _concurrent(needs: Needs) -> int:
    """Number of trials that the cluster has room for at once; at least one."""
    return max(1, room_for(needs.resources) // needs.workers)


def run_beside(
    function: Callable[..., None], *arguments: Any, resources: Mapping[str, float]
) -> None:
    """Run function(*arguments) in a process with a worker's resources, and wait for it. For a trial
    that waits for its workers: it has none itself, and its placement group has no room for them.

    Args:
        function: importable.
    """
    import ray

    cpus, gpus = (resources.get(kind, 0) for kind in ("CPU", "GPU"))
    # Given here, and not by `options`: then a process that had a GPU is never used again.
    task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, scheduling_strategy="DEFAULT")(call)
    parcel = pack(*arguments)
    try:
        ray.get(task.remote(function, parcel))
    finally:
        parcel.take_back()
