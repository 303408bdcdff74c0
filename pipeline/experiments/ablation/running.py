"""A trial from its beginning to its measured rows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.experiments.ablation.measuring import measure_trial
from pipeline.experiments.ablation.trial import Trial
from pipeline.runtime.run_log import RunLog
from pipeline.runtime.trials import run_beside
from pipeline.training.transformer.model import train_model


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
    run_trial(tracked.trial, on_row=tracked.run.log_training)


def run_trial(
    trial: Trial, *, on_row: Callable[[dict[str, float]], None] = lambda row: None
) -> None:
    """Train the trial's model, unless it is there or released weights take its place, and measure
    it.

    Args:
        on_row: called with each new row of its training's history.
    """
    if trial.training is not None:
        train_model(trial.training, on_row=on_row)
    if trial.workers.under_ray_train:
        run_beside(measure_trial, trial, resources=trial.workers.resources)
    else:
        measure_trial(trial)
