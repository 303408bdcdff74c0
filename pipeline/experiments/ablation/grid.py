"""The grid of the ablation: every trial that the params ask for."""

from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.paths import CURVES
from pipeline.experiments.ablation.training import training_key, trial_params
from pipeline.experiments.ablation.trial import Trial
from pipeline.runtime.files import tree_hash
from pipeline.runtime.runs import run_dir
from pipeline.runtime.stage import Stage

# The grid: no single trial depends on it. (The curve of its own schedule is part of a trial's key.)
GRID = ("sweep.schedules", "sweep.iterations", "sweep.seeds", CURVES.as_posix())


def trials(params: Params, stage: Stage) -> list[Trial]:
    """The grid of `params.sweep`, a trial for each (schedule, seed)."""
    common, found = training_key(params), []
    for schedule in params.sweep.schedules:
        curve = tree_hash(CURVES / f"{schedule}.csv")
        for seed in params.sweep.seeds:
            own = {"schedule": schedule, "curve": curve, "seed": seed}
            folder = run_dir("sweep/training", common | own, params.ray.storage_path)
            trial = Trial(
                seed=seed,
                iterations=sorted(params.sweep.iterations),
                folder=str(stage.folder(*GRID, **own)),
                training_folder=str(folder),
                params=trial_params(params, schedule).model_dump(),
                root=str(Path.cwd()),
            )
            found.append(trial)
    return found
