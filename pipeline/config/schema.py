"""The sections of params.yaml, typed: every knob with its bounds. The comments of params.yaml say
what each one means."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.config.values import (
    Architecture,
    Batch,
    Channels,
    Count,
    CountFromZero,
    CropRatio,
    CropScale,
    Downloads,
    Extractor,
    Fraction,
    Grid,
    Images,
    Layers,
    Listed,
    Loaders,
    Name,
    NonNegative,
    Pair,
    Positive,
    Ratio,
    Schedule,
    Seed,
    Side,
    Source,
    SpikeFactor,
    Storage,
    Text,
    Width,
    Workers,
)
from pipeline.runtime import limits
from pipeline.runtime.dag import WHO
from pipeline.runtime.project import RUNS, is_store


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Data(Section):
    source: Source
    download_dir: Downloads
    image_size: Side
    channels: Channels
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    shard_size: Batch
    crop_scale: CropScale
    crop_ratio: CropRatio
    flip: bool


class Classifier(Section):
    architecture: Architecture
    width: Width
    crop_scale: CropScale
    steps: Count
    batch_size: Annotated[int, Field(ge=2, le=limits.BATCH)]  # one image cannot be normalised
    lr: Positive
    weight_decay: NonNegative
    label_smoothing: Fraction
    spike_factor: SpikeFactor
    bf16: bool
    checkpoint_every: Count


class Tokenizer(Section):
    pretrained: Text | None
    filters: Annotated[int, Field(ge=32, multiple_of=32, le=limits.WIDTH)]
    multipliers: Annotated[list[Width], Field(min_length=1, max_length=limits.LEVELS)]
    res_blocks: Layers
    embedding_dim: Width
    codebook_size: Annotated[int, Field(ge=2, le=limits.CODES)]
    steps: Count
    batch_size: Batch
    lr: Positive
    betas: Pair[Fraction]
    ema_decay: Fraction
    perceptual: Literal["classifier", "lpips_vgg", "lpips_alex", "lpips_squeeze"]
    perceptual_weight: NonNegative
    commitment_weight: NonNegative
    entropy_weight: NonNegative
    entropy_temperature: Positive
    revive_after: Count
    adversarial_weight: NonNegative
    adversarial_start: CountFromZero
    adaptive_weight: bool
    r1_weight: NonNegative
    r1_every: Count
    discriminator: Literal["patch", "stylegan"]
    discriminator_filters: Width
    spike_factor: SpikeFactor
    bf16: bool
    tf32: bool
    checkpoint_every: Count

    @property
    def downsampling(self) -> int:
        return 2 ** (len(self.multipliers) - 1)


class Tokens(Section):
    crops_per_image: Batch
    bf16: bool
    batch_size: Batch


class Transformer(Section):
    pretrained: Text | None
    layers: Layers
    hidden: Annotated[Width, Field(ge=2)]  # one number alone is normalised to nothing
    heads: Width
    mlp: Width
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
    batch_size: Batch
    accumulate: Batch
    lr: Positive
    warmup_steps: CountFromZero
    betas: Pair[Fraction]
    weight_decay: NonNegative
    grad_clip: Positive | None
    spike_factor: SpikeFactor
    ema_decay: Fraction
    mask_schedule: Schedule
    min_masking_rate: Ratio
    loss_on: Literal["masked", "all"]
    label_drop: Fraction
    bf16: bool
    bf16_gradients: bool
    compile: bool
    label_smoothing: Fraction
    other_label_smoothings: Listed[Fraction]
    checkpoint_every: Count


class Autoregressive(Section):
    steps: Count
    bf16: bool


class Ray(Section):
    num_workers: Workers
    cpus_per_worker: Workers
    loaders_per_worker: Loaders
    use_gpu: bool
    elastic: bool
    max_failures: CountFromZero
    storage_path: Storage

    @property
    def folder(self) -> str:
        """Where run directories lie: an object store only gets copies."""
        return RUNS if is_store(self.storage_path) else self.storage_path

    @property
    def not_in_key(self) -> tuple[str, ...]:
        """The params that are no part of a run's key: who trains, where others may go on."""
        return WHO if self.elastic else ()


class Decoding(Section):
    iterations: Count
    choice_temperature: NonNegative
    rounding: Literal["floor", "ceil"]
    guidance_scale: NonNegative
    bf16: bool
    batch_size: Batch


class Sweep(Section):
    schedules: Grid[Schedule]
    iterations: Grid[Count]
    seeds: Grid[Seed]
    crossed: Listed[Schedule]
    steps: Count
    samples: Images
    workers_per_trial: Workers | None


class Evaluation(Section):
    extractor: Extractor
    second_extractor: Literal["random", "classifier", "inception", "vgg"]
    inception_weights: Text | None
    vgg_weights: Text | None
    reference_statistics: Text | None
    bf16: bool
    seeds: Grid[Seed]
    samples: Images
    labels: Literal["training", "uniform"]
    keep_samples: bool
    neighbors: Batch
    manifold_images: Images
    is_splits: Batch
    kid_subsets: Batch
    kid_subset_size: Annotated[int, Field(ge=2, le=limits.BATCH)]
    halves: Annotated[int, Field(ge=2, le=limits.BATCH)]

    @model_validator(mode="after")
    def _extractors_differ(self):
        if self.second_extractor == self.extractor:
            raise ValueError(
                f"second_extractor: {self.extractor} is the first one already; choose another"
            )
        return self


class Cas(Section):
    samples: Images
    steps: Count
    workers_per_classifier: Workers | None


class Temperature(Section):
    values: Grid[NonNegative]
    samples: Images


class Editing(Section):
    images: Images
    iterations: Count
    dilate: Annotated[int, Field(ge=0, le=limits.GRID)]
    feather: Annotated[int, Field(ge=0, le=limits.SIDE)]


class Rejection(Section):
    acceptance: Grid[Annotated[float, Field(ge=limits.SMALLEST, le=1)]]


class Reconstruction(Section):
    images: Images
    mask_ratios: Grid[Ratio]
    draws: Batch
    iterations: Count


class Speed(Section):
    grids: Grid[Annotated[int, Field(ge=1, le=limits.GRID)]]
    batch_sizes: Grid[Batch]
    repeats: Batch


class Analysis(Section):
    dpi: Annotated[int, Field(ge=10)]
    best_by: Literal["fid", "is"]


class Mlflow(Section):
    experiment: Name


class Sections(Section):
    """The whole file: a section each, and what stands outside of one."""

    preset: Text
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
