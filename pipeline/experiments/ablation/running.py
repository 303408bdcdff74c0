"""A trial from its beginning to its measured rows."""

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.experiments.ablation.measuring import measure_trial
from pipeline.experiments.ablation.trial import Trial
from pipeline.runtime.run_log import RunLog
from pipeline.runtime.trials import run_beside
from pipeline.training.loop import run_training


@dataclass(frozen=True)
class TrackedTrial:
    """A trial and its MLflow run, which begins as it does and gets its curve while it trains."""

    trial: Trial
    run: RunLog

    @property
    def name(self) -> str:
        return self.trial.name

    @property
    def folders(self) -> list[Path]:
        return self.trial.folders

    @property
    def finished(self) -> bool:
        return self.trial.finished


def run_tracked(tracked: TrackedTrial) -> None:
    """As `run_trial`."""
    tracked.run.begin()
    run_trial(tracked.trial, tracked.run)


def run_trial(trial: Trial, log: RunLog | None = None) -> None:
    """Train the trial's model, unless it is there or released weights take its place, and measure
    it.

    Args:
        log: gets each new row of the training's history.
    """
    if trial.training is not None and not trial.training.finished:
        run_training(replace(trial.training, log=log))
    if trial.workers.under_ray_train:
        run_beside(measure_trial, trial, resources=trial.workers.resources)
    else:
        measure_trial(trial)
