"""The typed form of params.yaml: its sections, and the combinations of them that cannot work."""

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from pipeline.errors import UserError
from pipeline.sections import (
    Analysis,
    Autoregressive,
    Cas,
    Classifier,
    Data,
    Decoding,
    Editing,
    Evaluation,
    Mlflow,
    Ray,
    Reconstruction,
    Rejection,
    Section,
    Seed,
    Speed,
    Sweep,
    Temperature,
    Tokenizer,
    Tokens,
    Training,
    Transformer,
)

PARAMS_FILE = Path("params.yaml")


class Params(Section):
    preset: str
    seed: Seed
    data: Data
    classifier: Classifier
    tokenizer: Tokenizer
    tokens: Tokens
    transformer: Transformer
    training: Training
    autoregressive: Autoregressive
    ray: Ray
    decoding: Decoding
    sweep: Sweep
    evaluation: Evaluation
    cas: Cas
    temperature: Temperature
    editing: Editing
    rejection: Rejection
    reconstruction: Reconstruction
    speed: Speed
    analysis: Analysis
    mlflow: Mlflow

    @property
    def grid(self) -> int:
        """Tokens along each side of an image."""
        return self.data.image_size // self.tokenizer.downsampling

    @property
    def num_tokens(self) -> int:
        return self.grid**2

    @property
    def feature_dimensions(self) -> int | None:
        """Of the main extractor; None where only its network tells."""
        if self.evaluation.extractor == "inception":
            return 2048
        return 4 * self.classifier.width if self.classifier.architecture == "small" else None

    @model_validator(mode="after")
    def _combinations(self):
        factor = self.tokenizer.downsampling
        if self.data.image_size % factor:
            raise ValueError(
                f"data.image_size: {self.data.image_size} is not divisible by {factor}, the "
                f"tokenizer's downsampling (2^(len(tokenizer.multipliers) - 1)); change one of them"
            )
        for key, iterations in (
            ("decoding.iterations", self.decoding.iterations),
            ("editing.iterations", self.editing.iterations),
            ("reconstruction.iterations", self.reconstruction.iterations),
            ("sweep.iterations", max(self.sweep.iterations)),
        ):
            if iterations > self.num_tokens:
                raise ValueError(
                    f"{key}: {iterations} iterations are more than the {self.num_tokens} tokens "
                    f"of an image; use at most {self.num_tokens}"
                )
        for key, samples in (
            ("sweep.samples", self.sweep.samples),
            ("evaluation.samples", self.evaluation.samples),
            ("temperature.samples", self.temperature.samples),
            ("editing.images", self.editing.images),
        ):
            if samples < self.evaluation.kid_subset_size:
                raise ValueError(
                    f"{key}: {samples} are fewer than evaluation.kid_subset_size "
                    f"{self.evaluation.kid_subset_size}; raise it or lower the subset's size"
                )
        dimensions = self.feature_dimensions
        for key, samples in (
            ("sweep.samples", self.sweep.samples),
            ("evaluation.samples", self.evaluation.samples),
        ):
            if dimensions and samples <= dimensions:
                raise ValueError(
                    f"{key}: {samples} samples give no covariance of the {dimensions}-dimensional "
                    f"features of evaluation.extractor {self.evaluation.extractor}, and so no FID; "
                    f"use at least {dimensions + 1}"
                )
        if self.evaluation.second_extractor == self.evaluation.extractor:
            raise ValueError(
                f"evaluation.second_extractor: {self.evaluation.extractor} is the first one; "
                f"choose another"
            )
        if self.tokenizer.perceptual != "classifier" and self.data.image_size < 32:
            raise ValueError(
                f"tokenizer.perceptual: {self.tokenizer.perceptual} needs images of 32 pixels or "
                f"more, not {self.data.image_size}; use classifier"
            )
        drops = self.training.label_drop > 0 or self.transformer.pretrained
        if self.decoding.guidance_scale > 0 and not drops:
            raise ValueError(
                "decoding.guidance_scale: guidance needs a model that has seen images without "
                "their class; set training.label_drop (0.1, say), or guidance_scale to 0"
            )
        if self.training.batch_size % self.ray.num_workers:
            raise ValueError(
                f"training.batch_size: {self.training.batch_size} does not split over "
                f"ray.num_workers {self.ray.num_workers}; choose a multiple"
            )
        if self.training.batch_size % self.sweep.workers_per_trial:
            raise ValueError(
                f"sweep.workers_per_trial: training.batch_size {self.training.batch_size} does not "
                f"split over {self.sweep.workers_per_trial} workers; choose a divisor"
            )
        return self


def read_yaml(path: Path) -> dict:
    """Read a YAML 1.2 file, as DVC does (so that 1e-4 is a number).

    Raises:
        UserError: it is missing, not YAML, or not a mapping.
    """
    from ruamel.yaml import YAMLError

    try:
        values = copy.deepcopy(_parse(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run from the project's root folder") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold sections of key: value pairs")
    return values


@lru_cache(maxsize=4)  # a stage looks into dvc.yaml and params.yaml again and again
def _parse(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(text)


def load_params(path: Path | str = PARAMS_FILE) -> Params:
    """Read and validate a parameter file.

    Raises:
        UserError: an unknown key, a wrong type or an impossible combination; one line that names
            the key and the way out.
    """
    path = Path(path)
    try:
        return Params.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(f"{path}: {_one_line(error)}") from None


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key; remove it or check its spelling against the file's comments"
    elif first["type"] == "missing":
        message = "missing; add it (the preset files under presets/ show every key)"
    elif not first["type"].startswith("value_error"):
        message = f"{message}, not {first['input']!r}"
    more = error.error_count() - 1
    return f"{key + ': ' if key else ''}{message}" + (f" (and {more} more)" if more else "")
