"""What is asked for: trainings, the step counts at which each is measured, and ways of decoding."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipeline.config.mistakes import first_mistake
from pipeline.config.params import Params
from pipeline.config.values import Count, Fraction, Images, NonNegative, Seed
from pipeline.runtime.errors import UserError
from pipeline.schedules import SCHEDULES

BASELINE = "autoregressive"  # among the names of networks, the others being mask schedules
OWN = "own"  # among the names of decoding schedules: the one that the network was trained with
# Options of the command that are lists with commas, and what they list.
OPTIONS: dict[str, type] = {
    "networks": str,
    "label_smoothings": float,
    "seeds": int,
    "steps": int,
    "decode_schedules": str,
    "iterations": int,
    "choice_temperatures": float,
}


@dataclass(frozen=True)
class Training:
    """One training, which is measured at every step count that it passes."""

    network: str  # the mask schedule that MaskGIT is trained with, or `BASELINE`
    label_smoothing: float
    seed: int

    @property
    def name(self) -> str:
        """In messages."""
        return f"{self.network}, label smoothing {self.label_smoothing:g}, seed {self.seed}"


@dataclass(frozen=True)
class Decoding:
    """One way to draw samples from a trained MaskGIT."""

    schedule: str
    iterations: int  # T
    choice_temperature: float


@dataclass(frozen=True)
class Grid:
    """The product of all its lists; the baseline has one way of decoding, and no schedules."""

    networks: list[str]
    label_smoothings: list[float]
    seeds: list[int]
    steps: list[int]
    decode_schedules: list[str]
    iterations: list[int]
    choice_temperatures: list[float]
    samples: int

    @classmethod
    def of(cls, params: Params, options: dict[str, str | None], samples: int | None) -> "Grid":
        """The grid that the command's options ask for.

        Args:
            options: some of `OPTIONS`; for those that are missing or None the sweep's values.

        Raises:
            UserError: a value is no number, or cannot be trained or decoded.
        """
        sweep = params.sweep
        lists: dict[str, list[Any]] = {
            "networks": [*sweep.schedules, BASELINE],
            "label_smoothings": [params.training.label_smoothing],
            "seeds": sweep.seeds,
            "steps": [sweep.steps],
            "decode_schedules": [OWN],
            "iterations": sweep.iterations,
            "choice_temperatures": [params.decoding.choice_temperature],
        }
        for name, kind in OPTIONS.items():
            if (text := options.get(name)) is not None:
                lists[name] = _values(name, kind, text)
        grid = cls(**lists, samples=params.evaluation.samples if samples is None else samples)
        grid._check(params)
        return grid

    @property
    def schedules(self) -> list[str]:
        """The mask schedules that are trained or decoded with."""
        return sorted({*self.networks, *self.decode_schedules} - {BASELINE, OWN})

    def _check(self, params: Params) -> None:
        self._check_values(params)
        self._check_samples(params)
        self._check_guidance(params)

    def _check_values(self, params: Params) -> None:
        for option, names, extra in (
            ("--networks", self.networks, BASELINE),
            ("--decode-schedules", self.decode_schedules, OWN),
        ):
            if unknown := set(names) - {*SCHEDULES, extra}:
                known = ", ".join([*SCHEDULES, extra])
                raise UserError(f"{option}: '{min(unknown)}' is none of {known}; use these")
        for option, values, kind in (
            ("--seeds", self.seeds, Seed),
            ("--steps", self.steps, Count),
            ("--samples", [self.samples], Images),
            ("--iterations", self.iterations, Count),
            ("--choice-temperatures", self.choice_temperatures, NonNegative),
            ("--label-smoothings", self.label_smoothings, Fraction),
        ):
            for value in values:
                _require(option, value, kind)
        if (most := max(self.iterations)) > params.num_tokens:
            raise UserError(
                f"--iterations: {most} are more than the {params.num_tokens} tokens of an image; "
                f"use at most as many"
            )

    def _check_samples(self, params: Params) -> None:
        """As params do with the samples of stages."""
        evaluation, dimensions = params.evaluation, params.feature_dimensions
        if dimensions and self.samples <= dimensions:
            raise UserError(
                f"--samples: {self.samples} samples give no covariance of the "
                f"{dimensions}-dimensional features of evaluation.extractor "
                f"{evaluation.extractor}, and so no FID; use at least {dimensions + 1}"
            )
        if self.samples < evaluation.kid_subset_size:
            raise UserError(
                f"--samples: {self.samples} are fewer than evaluation.kid_subset_size "
                f"{evaluation.kid_subset_size}; raise it or lower the subset's size"
            )
        if self.samples <= evaluation.neighbors or self.samples < evaluation.is_splits:
            raise UserError(
                f"--samples: {self.samples} are too few for evaluation.neighbors "
                f"{evaluation.neighbors} or is_splits {evaluation.is_splits}; use more"
            )

    def _check_guidance(self, params: Params) -> None:
        """Networks are trained here, even where params take released ones for the stages."""
        guided = params.decoding.guidance_scale > 0 and set(self.networks) != {BASELINE}
        if guided and params.training.label_drop == 0:
            raise UserError(
                "decoding.guidance_scale: guidance needs networks that have seen images without "
                "their class, and `scale` trains its own; set training.label_drop (0.1, say), or "
                "guidance_scale to 0"
            )

    def trainings(self) -> list[Training]:
        """A whole seed before the next one, so that a grid cut short compares like with like."""
        axes = product(self.seeds, self.label_smoothings, self.networks)
        return [Training(network, smoothing, seed) for seed, smoothing, network in axes]

    def decodings(self, training: Training) -> Iterator[Decoding | None]:
        """The ways of decoding that network; None is the baseline's."""
        if training.network == BASELINE:
            yield None
            return
        axes = product(self.decode_schedules, self.iterations, self.choice_temperatures)
        for schedule, iterations, temperature in axes:
            own = training.network if schedule == OWN else schedule
            yield Decoding(own, iterations, temperature)


def _values(name: str, kind: type, text: str) -> list[Any]:
    """The list in an option's text, each value once and in order."""
    try:
        # Python reads ٢ and 1_0 as numbers too.
        if kind is not str and not (text.isascii() and "_" not in text):
            raise ValueError(text)
        return list(dict.fromkeys(kind(part) for part in text.split(",")))
    except ValueError:
        option = f"--{name.replace('_', '-')}"
        raise UserError(f"{option}: '{text}' is no list of numbers; write it as 1,2") from None


def _require(option: str, value: Any, kind: Any) -> None:
    """Raise a `UserError` unless params could have the value (pipeline/config/values.py)."""
    try:
        TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        raise UserError(f"{option}: {first_mistake(error)}") from None
