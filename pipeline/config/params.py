"""The typed form of params.yaml: its sections, and the combinations of them that cannot work."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError, model_validator

from pipeline.config.mistakes import first_mistake
from pipeline.config.places import DOWNLOADS, STORAGE, check_places
from pipeline.config.schema import Sections
from pipeline.config.trainings import workers_per_trial
from pipeline.runtime.dag import FILE_PARAMS, PARAMS_FILE, flatten
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import as_written, read_yaml
from pipeline.runtime.limits import GRID, WIDTH

if TYPE_CHECKING:
    from pipeline.decoding import DecodingSettings


class ClassifierImages(NamedTuple):
    """Images as classifiers are trained on them; the fields are those of the section `data`."""

    image_size: int
    channels: int
    crop_scale: list[float]
    crop_ratio: list[float]
    flip: bool


class Params(Sections):
    @property
    def grid(self) -> int:
        """Tokens along each side of an image."""
        return self.data.image_size // self.tokenizer.downsampling

    @property
    def num_tokens(self) -> int:
        return self.grid**2

    @property
    def classifier_images(self) -> ClassifierImages:
        """How images are cropped for classifiers: as `data` says, but for the range of areas."""
        data = self.data
        return ClassifierImages(
            image_size=data.image_size,
            channels=data.channels,
            crop_scale=self.classifier.crop_scale,
            crop_ratio=data.crop_ratio,
            flip=data.flip,
        )

    @property
    def feature_dimensions(self) -> int | None:
        """Number of features of the main extractor; None where only its network can tell."""
        if self.evaluation.extractor == "inception":
            return 2048
        return 4 * self.classifier.width if self.classifier.architecture == "small" else None

    def decoding_settings(
        self, *, iterations: int | None = None, autoregressive: bool = False
    ) -> "DecodingSettings":
        """The settings of decoding MaskGIT's tokens, or the baseline's: it has a `bf16` of its own.

        Args:
            iterations: T in place of `decoding.iterations`.
        """
        from pipeline.decoding import DecodingSettings  # and torch, which the rest can do without

        decoding = self.decoding
        return DecodingSettings(
            iterations=iterations or decoding.iterations,
            schedule=self.training.mask_schedule,
            choice_temperature=decoding.choice_temperature,
            guidance_scale=decoding.guidance_scale,
            bf16=self.autoregressive.bf16 if autoregressive else decoding.bf16,
            rounding=decoding.rounding,
        )

    @model_validator(mode="after")
    def _combinations(self):
        self._check_images()
        self._check_iterations()
        self._check_editing()
        self._check_samples()
        self._check_trainings()
        self._check_guidance()
        self._check_workers()
        self._check_places()
        return self

    def _check_images(self) -> None:
        factor, size = self.tokenizer.downsampling, self.data.image_size
        if size % factor:
            raise ValueError(
                f"data.image_size: {size} is not divisible by {factor}, the tokenizer's "
                f"downsampling (2^(len(tokenizer.multipliers) - 1)); change one of them"
            )
        if self.grid > GRID:
            raise ValueError(
                f"data.image_size: {self.grid}×{self.grid} tokens an image are more than the limit "
                f"of {GRID}×{GRID} (docs/limits.md); add levels to tokenizer.multipliers"
            )
        for section in ("data", "classifier"):
            if (area := getattr(self, section).crop_scale[1]) * size**2 < 1:
                raise ValueError(
                    f"{section}.crop_scale: {area:g} of an image of {size}×{size} pixels is less "
                    f"than one; use more"
                )
        widest = self.tokenizer.filters * max(self.tokenizer.multipliers)
        if widest > WIDTH:
            raise ValueError(
                f"tokenizer.multipliers: {widest} channels (filters × the largest) are more than "
                f"the limit of {WIDTH} (docs/limits.md); use smaller ones"
            )
        if self.tokenizer.perceptual != "classifier" and size < 32:
            raise ValueError(
                f"tokenizer.perceptual: {self.tokenizer.perceptual} needs images of 32 pixels or "
                f"more, not {size}; use classifier"
            )
        if self.tokenizer.discriminator == "patch" and size < 4:
            raise ValueError(
                f"data.image_size: {size} pixels are fewer than the 4 that the patch discriminator "
                f"looks at; use 4 or more"
            )
        if self.tokenizer.discriminator == "stylegan" and (size < 4 or size & (size - 1)):
            raise ValueError(
                f"tokenizer.discriminator: stylegan halves images down to 4 pixels, and "
                f"data.image_size {size} is not 4, 8, 16 …; use such a size, or patch"
            )
        narrowest = self.tokenizer.filters * min([1, *self.tokenizer.multipliers][-2:])
        if self.grid == 1 and narrowest == 32:  # as many groups has each norm
            raise ValueError(
                f"data.image_size: {size} pixels are one token, whose 32 channels are normalised "
                f"one by one, so that nothing is left of them; use larger images, fewer levels in "
                f"tokenizer.multipliers, or more tokenizer.filters"
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

    def _check_editing(self) -> None:
        """Refuse what leaves nothing of an image known where its middle, a box of half the sides,
        is made anew: the edit would be a sample, whatever the image."""
        size, factor, dilate = (
            self.data.image_size,
            self.tokenizer.downsampling,
            self.editing.dilate,
        )
        half = round(size / 2)
        before, end = (size - half) // 2, (size - half) // 2 + half  # the box's pixels, as a range
        known = max(before // factor, self.grid - -(-end // factor))  # tokens beside the box
        if dilate and dilate >= known:
            raise ValueError(
                f"editing.dilate: {dilate} leaves no token known around the middle of "
                f"{self.grid}×{self.grid} tokens; use at most {max(0, known - 1)}"
            )
        if self.editing.feather > size:
            raise ValueError(
                f"editing.feather: {self.editing.feather} pixels are more than an image's "
                f"{size}; use less"
            )

    def _check_samples(self) -> None:
        if self.evaluation.manifold_images <= self.evaluation.neighbors:
            raise ValueError(
                f"evaluation.manifold_images: {self.evaluation.manifold_images} are too few for "
                f"evaluation.neighbors {self.evaluation.neighbors}; use more images than neighbors"
            )
        dimensions = self.feature_dimensions
        for key, samples in (
            ("sweep.samples", self.sweep.samples),
            ("evaluation.samples", self.evaluation.samples),
        ):
            if samples < self.evaluation.kid_subset_size:
                raise ValueError(
                    f"{key}: {samples} are fewer than evaluation.kid_subset_size "
                    f"{self.evaluation.kid_subset_size}; raise it or lower the subset's size"
                )
            if samples <= self.evaluation.neighbors or samples < self.evaluation.is_splits:
                raise ValueError(
                    f"{key}: {samples} are too few for evaluation.neighbors "
                    f"{self.evaluation.neighbors} or is_splits {self.evaluation.is_splits}; "
                    f"use more"
                )
            if dimensions and samples <= dimensions:
                raise ValueError(
                    f"{key}: {samples} samples give no covariance of the {dimensions}-dimensional "
                    f"features of evaluation.extractor {self.evaluation.extractor}, and so no FID; "
                    f"use at least {dimensions + 1}"
                )
        for key, samples in (
            ("temperature.samples", self.temperature.samples),
            ("editing.images", self.editing.images),
        ):
            if samples < self.evaluation.is_splits:
                raise ValueError(
                    f"{key}: {samples} are too few for evaluation.is_splits "
                    f"{self.evaluation.is_splits}; use more"
                )

    def _check_trainings(self) -> None:
        smoothings = [self.training.label_smoothing, *self.training.other_label_smoothings]
        if len({as_written(value) for value in smoothings}) < len(smoothings):
            raise ValueError(
                "training.other_label_smoothings: a value is listed twice, or is label_smoothing "
                "itself; list each once"
            )
        if untrained := set(self.sweep.crossed) - set(self.sweep.schedules):
            raise ValueError(
                f"sweep.crossed: {min(untrained)} is none of sweep.schedules, which are trained; "
                f"add it to them, or remove it here"
            )

    def _check_guidance(self) -> None:
        drops = self.training.label_drop > 0 or self.transformer.pretrained
        if self.decoding.guidance_scale > 0 and not drops:
            raise ValueError(
                "decoding.guidance_scale: guidance needs a model that has seen images without "
                "their class; set training.label_drop (0.1, say), or guidance_scale to 0"
            )

    def _check_workers(self) -> None:
        for section in ("training", "tokenizer", "classifier"):
            size = getattr(self, section).batch_size
            if size % self.ray.num_workers:
                raise ValueError(
                    f"{section}.batch_size: {size} does not split over ray.num_workers "
                    f"{self.ray.num_workers}; choose a multiple"
                )
        loaders, cpus = self.ray.loaders_per_worker, self.ray.cpus_per_worker
        if loaders and loaders >= cpus:
            raise ValueError(
                f"ray.loaders_per_worker: {loaders} loaders and the training itself need "
                f"{loaders + 1} CPUs, and ray.cpus_per_worker is {cpus}; raise it or use fewer"
            )
        each = {
            "sweep.workers_per_trial": (self.sweep.workers_per_trial, "training"),
            "cas.workers_per_classifier": (self.cas.workers_per_classifier, "classifier"),
        }
        for key, (workers, section) in each.items():
            if workers is None and not self.ray.elastic:
                raise ValueError(
                    f"{key}: null needs ray.elastic, without which trainings depend on the number "
                    f"of their workers; set it to true, or choose a number"
                )
            size = getattr(self, section).batch_size
            if workers and size % workers:
                raise ValueError(
                    f"{key}: {section}.batch_size {size} does not split over {workers} workers; "
                    f"choose a divisor"
                )
        for workers in (self.ray.num_workers, workers_per_trial(self)):
            share = self.training.batch_size // workers
            if share % self.training.accumulate:
                raise ValueError(
                    f"training.accumulate: {self.training.accumulate} parts do not divide the "
                    f"{share} images of each of {workers} workers; choose a divisor"
                )

    def _check_places(self) -> None:
        values = flatten(self.model_dump())
        _, _, source = self.data.source.partition(":")
        named = {key: values[key] for key in (*FILE_PARAMS, DOWNLOADS)}
        check_places(named | {STORAGE: self.ray.folder, "data.source": source})


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
        raise UserError(f"{path}: {first_mistake(error)}") from None
