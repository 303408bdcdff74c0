"""The typed form of params.yaml: every knob, its bounds, and the combinations that cannot work."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import UserError

PARAMS_FILE = Path("params.yaml")
Extractor = Literal["classifier", "inception"]


def _known_schedule(name: str) -> str:
    from pipeline.masking import SCHEDULES  # imports torch: only when params are read

    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule '{name}'; one of {', '.join(SCHEDULES)}")
    return name


Schedule = Annotated[str, AfterValidator(_known_schedule)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(Section):
    source: Annotated[str, Field(pattern=r"^(mnist5k|torchvision:\w+|folder:.+)$")]
    download_dir: str
    image_size: Count
    channels: Literal[1, 3]
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    shard_size: Count
    crop_scale: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    crop_ratio: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    flip: bool

    @model_validator(mode="after")
    def _ranges(self):
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: {low} is above {high}; give [low, high]")
        if self.crop_scale[1] > 1:
            raise ValueError("crop_scale: a crop cannot exceed the image; use at most 1.0")
        return self


class Classifier(Section):
    architecture: Annotated[str, Field(pattern=r"^(small|torchvision:\w+)$")]
    width: Count
    steps: Count
    batch_size: Count
    lr: Positive
    weight_decay: NonNegative
    label_smoothing: Fraction
    checkpoint_every: Count


class Tokenizer(Section):
    pretrained: str | None
    filters: Annotated[int, Field(ge=32, multiple_of=32)]
    multipliers: Annotated[list[Count], Field(min_length=1)]
    res_blocks: Count
    embedding_dim: Count
    codebook_size: Annotated[int, Field(ge=2, le=65535)]
    steps: Count
    batch_size: Count
    lr: Positive
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)]
    ema_decay: Fraction
    perceptual: Literal["classifier", "lpips_vgg", "lpips_alex", "lpips_squeeze"]
    perceptual_weight: NonNegative
    commitment_weight: NonNegative
    entropy_weight: NonNegative
    entropy_temperature: Positive
    revive_after: Count
    adversarial_weight: NonNegative
    adversarial_start: Annotated[int, Field(ge=0)]
    r1_weight: NonNegative
    r1_every: Count
    discriminator_filters: Count
    bf16: bool
    checkpoint_every: Count

    @property
    def downsampling(self) -> int:
        return 2 ** (len(self.multipliers) - 1)


class Tokens(Section):
    crops_per_image: Count
    batch_size: Count


class Transformer(Section):
    pretrained: str | None
    layers: Count
    hidden: Count
    heads: Count
    mlp: Count
    dropout: Fraction

    @model_validator(mode="after")
    def _heads_divide(self):
        if self.hidden % self.heads:
            raise ValueError(
                f"heads: {self.heads} heads do not divide hidden {self.hidden}; choose a divisor"
            )
        return self


class Training(Section):
    steps: Count
    batch_size: Count
    lr: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)]
    weight_decay: NonNegative
    grad_clip: Positive | None
    ema_decay: Fraction
    label_smoothing: Fraction
    mask_schedule: Schedule
    min_masking_rate: Annotated[float, Field(ge=0, le=1)]
    loss_on: Literal["masked", "all"]
    label_drop: Fraction
    bf16: bool
    compile: bool
    checkpoint_every: Count


class Autoregressive(Section):
    steps: Count
    bf16: bool


class Ray(Section):
    num_workers: Count
    cpus_per_worker: Count
    use_gpu: bool
    max_failures: Annotated[int, Field(ge=0)]
    storage_path: str


class Decoding(Section):
    iterations: Count
    choice_temperature: NonNegative
    guidance_scale: NonNegative
    bf16: bool
    batch_size: Count


class Sweep(Section):
    schedules: Annotated[list[Schedule], Field(min_length=1)]
    iterations: Annotated[list[Count], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    steps: Count
    samples: Count
    workers_per_trial: Count

    @model_validator(mode="after")
    def _distinct(self):
        for name in ("schedules", "iterations", "seeds"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name}: a value is listed twice; list each once")
        return self


class Evaluation(Section):
    extractor: Extractor
    second_extractor: Literal["random", "classifier", "inception", "vgg"]
    inception_weights: str | None
    vgg_weights: str | None
    reference_statistics: str | None
    samples: Count
    neighbors: Count
    manifold_images: Count
    is_splits: Count
    kid_subsets: Count
    kid_subset_size: Annotated[int, Field(ge=2)]
    bootstrap: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _extractors_differ(self):
        if self.second_extractor == self.extractor:
            raise ValueError(
                f"second_extractor: {self.extractor} is the first one already; choose another"
            )
        return self


class Cas(Section):
    samples: Count
    steps: Count
    seeds: Annotated[list[Seed], Field(min_length=1)]


Ratio = Annotated[float, Field(ge=0, le=1)]


class Temperature(Section):
    values: Annotated[list[NonNegative], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    samples: Count


class Editing(Section):
    images: Count
    seeds: Annotated[list[Seed], Field(min_length=1)]
    iterations: Count
    dilate: Annotated[int, Field(ge=0)]
    feather: Annotated[int, Field(ge=0)]


class Rejection(Section):
    acceptance: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]


class Reconstruction(Section):
    images: Count
    mask_ratios: Annotated[list[Ratio], Field(min_length=1)]
    draws: Count
    iterations: Count


class Speed(Section):
    grids: Annotated[list[Count], Field(min_length=1)]
    batch_sizes: Annotated[list[Count], Field(min_length=1)]
    repeats: Count


class Analysis(Section):
    dpi: Count
    best_by: Literal["fid", "is"]


class Mlflow(Section):
    experiment: Annotated[str, Field(min_length=1)]


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
    from ruamel.yaml import YAML, YAMLError

    try:
        values = YAML(typ="safe").load(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run from the project's root folder") from error
    except YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold sections of key: value pairs")
    return values


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
