"""The grid of the ablation: every trial that the params ask for."""

import math
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.paths import CURVES
from pipeline.config.trainings import trial_count, workers_per_trial
from pipeline.experiments.ablation.training import training_job, training_key, trial_params
from pipeline.experiments.ablation.trial import Cell, Trial
from pipeline.runtime.files import tree_hash
from pipeline.runtime.stage import Stage
from pipeline.training.loop import Workers

# The grid: no single trial depends on it. (The curves that a trial is trained and decoded with are
# part of its key, and so is the number of its iterations.)
GRID = (
    "sweep.schedules",
    "sweep.iterations",
    "sweep.seeds",
    "sweep.crossed",
    "decoding.iterations",
    CURVES.as_posix(),
)


def trials(params: Params, stage: Stage) -> list[Trial]:
    """The grid of `params.sweep`, a trial for each (schedule, seed)."""
    common, found = training_key(params), []
    released = params.transformer.pretrained is not None
    for schedule in params.sweep.schedules:
        own: dict[str, Any] = {"schedule": schedule, "curve": _curve(schedule)}
        own_params = trial_params(params, schedule)
        for seed in params.sweep.seeds:
            own = own | {"seed": seed}
            folder = str(stage.folder(*GRID, **own))
            job = None if released else training_job(own_params, common | own, seed)
            trial = Trial(
                seed=seed,
                cells=[
                    Cell(schedule, iterations, folder)
                    for iterations in sorted(params.sweep.iterations)
                ],
                crossed=_crossed(params, stage, own),
                folder=folder,
                training=job,
                workers=trial_workers(params),
                params=own_params.model_dump(),
                root=str(Path.cwd()),
            )
            found.append(trial)
    return found


def trial_workers(params: Params) -> Workers:
    """The workers of each trial. Where released weights take training's place they only decode, all
    but the one that measures, or each by itself where that is quicker, as with few devices."""
    ray = params.ray
    if params.transformer.pretrained is None:
        return Workers.of(ray, workers_per_trial(params))
    trials, devices, given = trial_count(params), ray.num_workers, params.sweep.workers_per_trial
    choices = {1, min(given, devices)} if given else range(1, devices + 1)

    def taken(count: int) -> float:
        """In units of what one device takes for a trial."""
        return math.ceil(trials / (devices // count)) / max(1, count - 1)

    return Workers.of(ray, min(sorted(choices), key=taken))


def _crossed(params: Params, stage: Stage, own: dict[str, Any]) -> list[Cell]:
    """The cells of a trial whose model is decoded with each of the crossed schedules; that of its
    own is a cell like those of the ablation."""
    crossed, iterations = params.sweep.crossed, params.decoding.iterations
    if own["schedule"] not in crossed:
        return []
    cells = []
    for name in crossed:
        other = {} if name == own["schedule"] else {"decoded": name, "decoded_curve": _curve(name)}
        cells.append(Cell(name, iterations, str(stage.folder(*GRID, **own, **other))))
    return cells


def _curve(schedule: str) -> str:
    """Hash of the numbers of a schedule."""
    return tree_hash(CURVES / f"{schedule}.csv")
