"""Ray Tune runs the ablation's trials, as many at once as the cluster has room for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.experiments.ablation.measuring import measure_trial
from pipeline.experiments.ablation.training import train_trial
from pipeline.experiments.ablation.trial import Trial
from pipeline.runtime.errors import UserError
from pipeline.training.transformer.ray_train import worker_resources


def run_trials(trials: list[Trial], params: Params, *, on_done: Callable[[Trial], None]) -> None:
    """Run the trials. What a finished one wrote stays, whatever happens to the others.

    Args:
        on_done: called here with each trial that ended well.

    Raises:
        UserError: a trial failed or did not finish, or `on_done` raised it.
    """
    from ray import tune

    watch = _watch(trials, on_done)
    storage = f"{Path(params.ray.storage_path).absolute()}/tune"
    tuner = tune.Tuner(
        tune.with_resources(_trainable, _trial_resources(params)),
        param_space={"trial": tune.grid_search(trials)},
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            max_concurrent_trials=_concurrent(params),
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            storage_path=storage,
            verbose=0,
            callbacks=[watch],
            stop=watch,
            failure_config=tune.FailureConfig(max_failures=params.ray.max_failures),
        ),
    )
    for trial in trials:
        trial.failure.clear()
    tuner.fit()
    if watch.error:
        raise watch.error
    for trial in trials:
        if trial.missing():
            raise UserError(
                f"sweep: trial {trial.name} failed: {trial.failure.read() or 'its worker was lost'}"
                f"; finished trials are kept, run again to go on"
            )


def _watch(trials: list[Trial], on_done: Callable[[Trial], None]) -> Any:
    """The callback for trials that end. Tune only logs what a callback raises; a `UserError` is
    therefore kept as its `error`, and all trials are stopped."""
    from ray import tune

    by_name = {trial.name: trial for trial in trials}

    class Watch(tune.Callback, tune.Stopper):
        error: UserError | None = None

        def on_trial_complete(self, iteration, trials, trial, **info):
            finished = by_name[trial.config["trial"].name]
            if finished.missing() or self.error:
                return
            try:
                on_done(finished)
            except UserError as error:
                self.error = error

        def __call__(self, trial_id, result) -> bool:
            return False

        def stop_all(self) -> bool:
            return self.error is not None

    return Watch()


def workers_per_trial(params: Params) -> int:
    """Workers that train a trial; released weights are not trained."""
    return 1 if params.transformer.pretrained else params.sweep.workers_per_trial


def _trial_resources(params: Params) -> dict[str, float]:
    """The resources that a trial's process reserves.

    A trial that is a Ray Train run only waits for its workers. If it reserved even a part of a CPU,
    its workers might not fit beside it, and would wait for ever. It therefore reserves a little
    memory only (Tune requires something); `_concurrent` limits the number of such trials.
    """
    return worker_resources(params.ray) if workers_per_trial(params) == 1 else {"memory": 2**20}


def _concurrent(params: Params) -> int:
    """Number of trials that the cluster has room for at once; at least one."""
    import ray

    have, workers = ray.cluster_resources(), workers_per_trial(params)
    needs = worker_resources(params.ray).items()
    return max(1, min(int(have.get(kind, 0) // (workers * need)) for kind, need in needs))


def _trainable(config: dict) -> None:
    import ray
    from ray import tune

    trial: Trial = config["trial"]
    params = Params.model_validate(trial.params)
    with trial.failure.noted():
        train_trial(trial)
        if workers_per_trial(params) == 1:
            measure_trial(trial)
        else:  # this process holds no device, and its placement group has no room for one
            options = {
                "num_cpus": params.ray.cpus_per_worker,
                "num_gpus": int(params.ray.use_gpu),
                "scheduling_strategy": "DEFAULT",
            }
            ray.get(ray.remote(_measure).options(**options).remote(trial))
    tune.report({"missing": len(trial.missing())})


def _measure(trial: Trial) -> None:
    with trial.failure.noted():
        measure_trial(trial)
