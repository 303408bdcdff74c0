"""The grid of the ablation: its trials, and how the model of each is decoded."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.paths import CURVES
from pipeline.config.trainings import workers_per_trial
from pipeline.decoding import DecodingSettings
from pipeline.experiments.ablation.training import training_job, training_key, trial_params
from pipeline.runtime.files import read_json, tree_hash, value_hash
from pipeline.runtime.run_log import RunLog
from pipeline.runtime.stage import Stage
from pipeline.training.loop import Workers
from pipeline.training.transformer import TransformerTraining

SETTINGS = tuple(field.name for field in fields(DecodingSettings))
# A trial does not depend on the rest of the grid. Its curve is a part of its own key, and the
# decoding settings name the files of its cells.
GRID = (
    *("sweep.schedules", "sweep.seeds", "sweep.crossed", CURVES.as_posix()),
    *(f"sweep.{name}" for name in SETTINGS),
    *(f"decoding.{name}" for name in SETTINGS),
)


def axes(params: Params) -> dict[str, list[Any]]:
    """The decoding settings that the sweep varies, each with its values: every field of
    `DecodingSettings` for which the section `sweep` has a list of the same name."""
    found = {name: getattr(params.sweep, name, None) for name in SETTINGS}
    return {name: sorted(values) for name, values in found.items() if values is not None}


@dataclass(frozen=True)
class Cell:
    """A way to decode a trial's model, and the file with what is measured of the samples."""

    settings: DecodingSettings
    axes: tuple[str, ...]  # the settings that the sweep varies
    path: Path  # its name is a hash of the settings

    @property
    def varied(self) -> dict[str, Any]:
        """The settings that tell it from the others of its trial, by name."""
        return {name: getattr(self.settings, name) for name in self.axes}


def measured(cells: Iterable[Cell], what: str = "row") -> list[dict[str, Any]]:
    """What was measured of the cells: the `row` of each, or its `timing`."""
    return [read_json(cell.path)[what] for cell in cells]


@dataclass(frozen=True)
class Trial:
    """One (schedule, seed). It travels to a worker; paths are absolute."""

    seed: int
    cells: list[Cell]  # decoded with its own schedule, a cell for each combination of the axes
    crossed: list[Cell]  # decoded with each of the schedules of `sweep.crossed`
    training: TransformerTraining | None  # None where released weights take its place
    workers: Workers  # of the training; then one of them measures, and the others decode
    params: Params  # with the trial's own schedule and steps under `training`
    root: Path  # the project's folder
    folder: Path  # of its cells
    run: RunLog = None  # type: ignore[assignment]  # its MLflow run, which the stage sets

    @property
    def schedule(self) -> str:
        return self.params.training.mask_schedule

    @property
    def name(self) -> str:
        return f"{self.schedule}/seed{self.seed}"

    @property
    def folders(self) -> list[Path]:
        """The run directories that it reads and writes."""
        training = [] if self.training is None else self.training.folders
        return [self.folder, *training]

    @property
    def missing(self) -> list[Cell]:
        """The cells that are not measured yet."""
        return [c for c in dict.fromkeys(self.cells + self.crossed) if not c.path.exists()]

    @property
    def finished(self) -> bool:
        return not self.missing

    def crossing(self) -> list[dict[str, Any]]:
        """The row of every schedule that the model is decoded with."""
        schedules = [{"decoding_schedule": cell.settings.schedule} for cell in self.crossed]
        return [a | b for a, b in zip(schedules, measured(self.crossed), strict=True)]


def trials(params: Params, stage: Stage) -> list[Trial]:
    """The trials of `params.sweep`, one for each (schedule, seed)."""
    common, found, swept = training_key(params), [], axes(params)
    released, crossed = params.transformer.pretrained is not None, params.sweep.crossed
    for schedule, seed in product(params.sweep.schedules, params.sweep.seeds):
        own = {"schedule": schedule, "curve": _curve(schedule), "seed": seed}
        own_params, folder = trial_params(params, schedule), stage.folder(*GRID, **own)
        cell = partial(_cell, tuple(swept), own_params.decoding_settings(), folder)
        trial = Trial(
            seed=seed,
            cells=[
                cell(**dict(zip(swept, values, strict=True))) for values in product(*swept.values())
            ],
            crossed=[cell(schedule=other) for other in (crossed if schedule in crossed else ())],
            training=None if released else training_job(own_params, common | own, seed),
            workers=trial_workers(params),
            params=own_params,
            root=Path.cwd(),
            folder=folder,
        )
        found.append(trial)
    return found


def trial_workers(params: Params) -> Workers:
    """The workers of each trial: of its training, or of decoding released weights."""
    return Workers.of(params.ray, workers_per_trial(params))


def _cell(axes: tuple[str, ...], settings: DecodingSettings, folder: Path, **changes: Any) -> Cell:
    """A cell of a trial's folder: these settings with changes."""
    settings = replace(settings, **changes)
    name = value_hash(asdict(settings) | {"curve": _curve(settings.schedule)})[:16]
    return Cell(settings, axes, folder / "cells" / f"{name}.json")


def _curve(schedule: str) -> str:
    """Hash of a schedule's curve."""
    return tree_hash(CURVES / f"{schedule}.csv")
