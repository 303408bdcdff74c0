"""The typed form of params.yaml: its sections, and the combinations of them that cannot work."""

from pathlib import Path

from pydantic import ValidationError, model_validator

from pipeline.config.schema import Sections
from pipeline.decoding import DecodingSettings
from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_yaml


class Params(Sections):
    @property
    def grid(self) -> int:
        """Tokens along each side of an image."""
        return self.data.image_size // self.tokenizer.downsampling

    @property
    def num_tokens(self) -> int:
        return self.grid**2

    @property
    def feature_dimensions(self) -> int | None:
        """Number of features of the main extractor; None where only its network can tell."""
        if self.evaluation.extractor == "inception":
            return 2048
        return 4 * self.classifier.width if self.classifier.architecture == "small" else None

    def decoding_settings(
        self, *, iterations: int | None = None, autoregressive: bool = False
    ) -> DecodingSettings:
        """The settings of decoding MaskGIT's tokens, or the baseline's: it has a `bf16` of its own.

        Args:
            iterations: T in place of `decoding.iterations`.
        """
        decoding = self.decoding
        return DecodingSettings(
            iterations=iterations or decoding.iterations,
            schedule=self.training.mask_schedule,
            choice_temperature=decoding.choice_temperature,
            guidance_scale=decoding.guidance_scale,
            bf16=self.autoregressive.bf16 if autoregressive else decoding.bf16,
        )

    @model_validator(mode="after")
    def _combinations(self):
        self._check_images()
        self._check_iterations()
        self._check_samples()
        self._check_guidance()
        self._check_workers()
        return self

    def _check_images(self) -> None:
        factor, size = self.tokenizer.downsampling, self.data.image_size
        if size % factor:
            raise ValueError(
                f"data.image_size: {size} is not divisible by {factor}, the tokenizer's "
                f"downsampling (2^(len(tokenizer.multipliers) - 1)); change one of them"
            )
        if self.tokenizer.perceptual != "classifier" and size < 32:
            raise ValueError(
                f"tokenizer.perceptual: {self.tokenizer.perceptual} needs images of 32 pixels or "
                f"more, not {size}; use classifier"
            )

    def _check_iterations(self) -> None:
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

    def _check_samples(self) -> None:
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

    def _check_guidance(self) -> None:
        drops = self.training.label_drop > 0 or self.transformer.pretrained
        if self.decoding.guidance_scale > 0 and not drops:
            raise ValueError(
                "decoding.guidance_scale: guidance needs a model that has seen images without "
                "their class; set training.label_drop (0.1, say), or guidance_scale to 0"
            )

    def _check_workers(self) -> None:
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
