"""Ray Tune around the sweep: queues the trials on whatever resources there are."""

from collections.abc import Callable
from pathlib import Path

from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.sweep import Trial, measure_trial, train_trial


def run_trials(
    trials: list[Trial],
    params: Params,
    reference: Path,
    *,
    on_done: Callable[[Trial], None],
) -> None:
    """Run the trials, as many at once as fit; finished ones keep their files whatever happens.

    Args:
        reference: file with the features of the real images that samples are compared with.
        on_done: called here with each trial that ended well.

    Raises:
        UserError: a trial failed or did not finish, or `on_done` raised it.
    """
    from ray import tune

    ray_params, workers = params.ray, workers_per_trial(params)
    per_worker = {"CPU": ray_params.cpus_per_worker}
    if ray_params.use_gpu:
        per_worker["GPU"] = 1
    # A trial that is a Ray Train run itself only waits for its workers: were it to hold even a part
    # of a CPU, its workers might not fit beside it and would wait for ever. It asks for a little
    # memory instead (Tune wants something); the number of trials is bounded by their workers.
    resources = per_worker if workers == 1 else {"memory": 2**20}

    by_name = {trial.name: trial for trial in trials}

    class Watch(tune.Callback, tune.Stopper):
        """Tune would only log what a callback raises: it is kept, and no trial goes on."""

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

    watch = Watch()
    storage = f"{_storage(params)}/tune"
    tuner = tune.Tuner(
        tune.with_resources(_trainable, resources),
        param_space={"trial": tune.grid_search(trials), "reference": reference},
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            max_concurrent_trials=_concurrent(workers, per_worker),
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            storage_path=storage,
            verbose=0,
            callbacks=[watch],
            stop=watch,
            failure_config=tune.FailureConfig(max_failures=ray_params.max_failures),
        ),
    )
    for trial in trials:
        trial.reason.unlink(missing_ok=True)
    tuner.fit()
    if watch.error:
        raise watch.error
    for trial in trials:
        if trial.missing():
            reason = trial.reason.read_text() if trial.reason.exists() else "its worker was lost"
            raise UserError(
                f"sweep: trial {trial.name} failed: {reason}; finished trials are kept, run again "
                f"to go on"
            )


def workers_per_trial(params: Params) -> int:
    """Workers that train a trial; released weights are not trained."""
    return 1 if params.transformer.pretrained else params.sweep.workers_per_trial


def _trainable(config: dict) -> None:
    import ray
    from ray import tune

    trial: Trial = config["trial"]
    reference: Path = config["reference"]
    try:
        train_trial(trial)
        params = Params.model_validate(trial.params)
        if workers_per_trial(params) == 1:
            measure_trial(trial, reference)
        else:  # this process holds no device, and its placement group has no room for one
            options = {
                "num_cpus": params.ray.cpus_per_worker,
                "num_gpus": int(params.ray.use_gpu),
                "scheduling_strategy": "DEFAULT",
            }
            failure = ray.get(ray.remote(_measure).options(**options).remote(trial, reference))
            if failure:
                raise UserError(failure)
    except UserError as error:  # told in one line by the driver; Ray would log it at length
        trial.reason.write_text(str(error))
    tune.report({"missing": len(trial.missing())})


def _measure(trial: Trial, reference: Path) -> str | None:
    """The line of a `UserError`, which Ray would wrap if it were raised."""
    try:
        measure_trial(trial, reference)
    except UserError as error:
        return str(error)
    return None


def _concurrent(workers: int, per_worker: dict[str, float]) -> int:
    """How many trials the cluster can hold at once; at least one."""
    import ray

    have = ray.cluster_resources()
    return max(1, min(int(have.get(k, 0) // (workers * need)) for k, need in per_worker.items()))


def _storage(params: Params) -> str:
    return str(Path(params.ray.storage_path).absolute())
