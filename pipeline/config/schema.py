"""The sections of params.yaml, typed: every knob with its bounds. The comments of params.yaml say
what each one means."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Extractor = Literal["classifier", "inception"]


def _known_schedule(name: str) -> str:
    from pipeline.schedules import SCHEDULES

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
    bf16: bool
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
    label_smoothing: Fraction
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


class Sections(Section):
    """The whole file: a section each, and what stands outside of one."""

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
