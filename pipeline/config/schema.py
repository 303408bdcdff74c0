"""Defines the sections of params.yaml, with the type, default and meaning of every param.

`python docs/params.py` writes docs/params.md from these definitions.
"""

import difflib
import os
from collections.abc import Collection
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from pipeline.decoding.samplers import SAMPLERS
from pipeline.decoding.samplers.guidance import GUIDANCE
from pipeline.runtime.dag import WHO
from pipeline.runtime.limits import CODES, SEED, SMALLEST
from pipeline.runtime.project import RUNS, is_store
from pipeline.schedules import SCHEDULES

RESNETS = "resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d "
RESNETS += "resnext101_64x4d wide_resnet50_2 wide_resnet101_2"
ARCHITECTURES = ["small", *(f"torchvision:{resnet}" for resnet in RESNETS.split())]
# The paper's mask schedules (Table 3).
SEVEN = ("exponential", "cubic", "square", "cosine", "linear", "square_root", "logarithmic")
FEW = (1, 2, 3, 4, 6, 8, 12, 16, 32)  # values of T
OTHERS = ["entropy", "margin", "random", "halton", "remask_capped"]  # samplers


def way_out(name: str, names: Collection[str], otherwise: str) -> str:
    """Returns "did you mean X?" for the most similar name X, or `otherwise` if none is close."""
    close = difflib.get_close_matches(name[:100], names, n=1)
    return f"did you mean {close[0]}?" if close else otherwise


def _names(names: Collection[str]) -> AfterValidator:
    def known(name: str) -> str:
        if name not in names:
            ways = way_out(name, names, f"use one of {', '.join(names)}")
            raise ValueError(f"'{name}' is unknown; {ways}")
        return name

    return AfterValidator(known)


def _source(name: str) -> str:
    from pipeline.prepare.datasets import source_form

    source_form(name)  # raises ValueError
    return name


def _storage(path: str) -> str:
    if ":/" in path and (not is_store(path) or "@" in path or "?" in path):
        raise ValueError(  # the message omits the address, which may contain a password
            "the value is not an object store's address; write s3://bucket/folder or "
            "gs://bucket/folder, and set keys as environment variables (docs/cluster.md)"
        )
    return os.path.expanduser(path)


def _distinct(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("a value is listed twice; list each value once")
    return values


Value = TypeVar("Value")
Text = Annotated[str, Field(min_length=1)]
Schedule = Annotated[str, _names(SCHEDULES)]
Seed = Annotated[int, Field(ge=0, le=SEED)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
SoftmaxTemperature = Annotated[float, Field(ge=SMALLEST)]
Pair = Annotated[list[Value], Field(min_length=2, max_length=2)]
Range = Annotated[Pair[Value], AfterValidator(sorted)]
Distinct = Annotated[list[Value], AfterValidator(_distinct)]
Grid = Annotated[Distinct[Value], Field(min_length=1)]

# Params that several sections share.
Steps = Annotated[PositiveInt, Field(description="Training steps.")]
CheckpointEvery = Annotated[
    PositiveInt, Field(description="Steps between checkpoints, and between logged values.")
]
Bf16 = bool | Literal["force"]
Iterations = Annotated[PositiveInt, Field(description="T, the number of decoding iterations.")]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Data(Section):
    source: Annotated[Text, AfterValidator(_source)] = "mnist5k"
    """`mnist5k` (5,000 digits, no download), `torchvision:NAME` or `folder:PATH`."""
    download_dir: Annotated[Text, AfterValidator(os.path.expanduser)] = "data/raw"
    """Folder for torchvision downloads."""
    image_size: PositiveInt = 28
    """Image side in pixels; a multiple of 2^(len(tokenizer.multipliers) - 1)."""
    channels: Literal[1, 3] = 1
    """1 for grey, 3 for RGB."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of each class that is held out if the source has no validation split."""
    shard_size: PositiveInt = 1024
    """Images per shard file."""
    crop_scale: Range[Share] = [0.8, 1.0]
    """Range of a random crop's area, as a share of the image's area."""
    crop_ratio: Range[PositiveFloat] = [0.9, 1.1111]
    """Range of a random crop's aspect ratio."""
    flip: bool = False
    """Mirror images at random (not for digits)."""

    @property
    def folder(self) -> str:
        """PATH if the source is `folder:PATH`; empty for other sources."""
        kind, _, argument = self.source.partition(":")
        return argument if kind == "folder" else ""


class Classifier(Section):
    """The reference classifier, for metrics and, by default, the tokenizer's perceptual loss."""

    pretrained: Text | None = None
    """Weights to use instead of training: a file of torchvision weights, or `torchvision` to
    download ImageNet weights. The data set must have the same classes as the weights."""
    architecture: Annotated[str, _names(ARCHITECTURES)] = "small"
    """`small` (a residual network for small images) or a ResNet such as `torchvision:resnet50`."""
    width: PositiveInt = 16
    """Channels of the first stage of `small`; its features have 4 × width dimensions."""
    crop_scale: Range[Share] = [0.8, 1.0]
    """Like data.crop_scale, but for classifiers. Usual for ResNet-50 on ImageNet: 0.08 to 1."""
    steps: Steps = 400
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Images per step."""
    lr: PositiveFloat = 4e-3
    """Peak learning rate of AdamW under a one-cycle schedule."""
    bf16: Bf16 = True
    """bfloat16 autocast; values: see training.bf16."""
    checkpoint_every: CheckpointEvery = 100


class Tokenizer(Section):
    """The VQGAN."""

    pretrained: Text | None = None
    """Weights file to use instead of training (docs/released.md)."""
    filters: Annotated[int, Field(ge=32, multiple_of=32)] = 32
    """Channels of the first level. Release: 128."""
    multipliers: Annotated[list[PositiveInt], Field(min_length=1)] = [1, 1, 2]
    """Channel multiplier per level; levels after the first halve the side. Release: 1,1,2,2,4."""
    res_blocks: PositiveInt = 1
    """Residual blocks in each level and in the middle. Release: 2."""
    embedding_dim: PositiveInt = 16
    """Dimension of a code's embedding. Release: 256."""
    codebook_size: Annotated[int, Field(ge=2, le=CODES)] = 64
    """Number of codes K. Paper: 1024."""
    steps: PositiveInt = 800
    """Training steps. Release: 1M."""
    batch_size: PositiveInt = 64
    """Images per step. Release: 256."""
    lr: PositiveFloat = 1e-3
    """Learning rate of Adam, also for the discriminator. Release: 1e-4."""
    betas: Pair[Fraction] = [0.0, 0.99]
    """Betas of Adam."""
    ema_decay: Fraction = 0.99
    """Decay of the weights' moving average, which later stages use."""
    perceptual: Literal["classifier", "lpips_vgg", "lpips_alex", "lpips_squeeze"] = "classifier"
    """Network of the perceptual loss. LPIPS networks are downloaded."""
    perceptual_weight: NonNegativeFloat = 0.1
    """Weight of the perceptual loss. Release: 0.1; the release's network is unpublished."""
    commitment_weight: NonNegativeFloat = 0.25
    """Weight of the commitment loss."""
    entropy_weight: NonNegativeFloat = 0.1
    """Weight of the entropy loss."""
    revive_after: PositiveInt = 50
    """A code unused for this many steps is replaced by an encoder output."""
    adversarial_weight: NonNegativeFloat = 0.05
    """Weight of the non-saturating GAN loss. Release: 0.1."""
    adversarial_start: NonNegativeInt = 400
    """Step s at which the GAN loss starts; its weight rises over the next min(s, 1000) steps."""
    r1_weight: NonNegativeFloat = 0.5
    """Weight of the R1 penalty ‖∇D‖². Release: 10, too much for small images."""
    r1_every: PositiveInt = 8
    """Steps between R1 penalties; the weight of each penalty is r1_weight × r1_every."""
    discriminator: Literal["patch", "stylegan"] = "patch"
    """`patch`: four convolutions; `stylegan`: the release's network, for images of side 2^n."""
    discriminator_filters: PositiveInt = 16
    """Channels of the discriminator's first layer. Release: 64, for 256×256 pixels."""
    bf16: Bf16 = True
    """bfloat16 autocast, except in the discriminator; values: see training.bf16."""
    tf32: bool = False
    """Allow TF32 in float32 convolutions on a GPU."""
    checkpoint_every: CheckpointEvery = 100

    @property
    def downsampling(self) -> int:
        return 2 ** (len(self.multipliers) - 1)


class Tokens(Section):
    """The tokens that the transformers train on."""

    crops_per_image: PositiveInt = 4
    """Random crops to encode per training image."""
    bf16: Bf16 = False
    """Encode in bfloat16 (values: see training.bf16). In a test, this changed 0.6% of tokens."""
    batch_size: PositiveInt = 256
    """Images encoded at once."""


class Transformer(Section):
    """The network of MaskGIT and of the autoregressive baseline."""

    pretrained: Text | None = None
    """Weights file to use instead of training MaskGIT. The sweep uses it too."""
    layers: PositiveInt = 2
    """Number of layers. Paper: 24."""
    hidden: Annotated[int, Field(ge=2)] = 128
    """Dimension of a token's embedding; a multiple of `heads`. Paper: 768."""
    heads: PositiveInt = 4
    """Attention heads per layer. Paper: 8; release: 16."""
    mlp: PositiveInt = 256
    """Hidden dimension of the MLPs. Paper: 3072."""
    dropout: Fraction = 0.0
    """Dropout rate in training. Paper: 0.1."""


class Training(Section):
    """Training of MaskGIT and of the autoregressive baseline."""

    steps: PositiveInt = 600
    """MaskGIT's training steps. Paper: 300 epochs, about 1.5M steps."""
    batch_size: PositiveInt = 64
    """Images per step, over all workers. Paper: 256."""
    accumulate: PositiveInt = 1
    """Microbatches per step, to save memory; a step still uses the whole batch's gradient."""
    lr: PositiveFloat = 4e-3
    """Peak learning rate. Release: 1e-4."""
    warmup_steps: NonNegativeInt = 50
    """Steps of linear warm-up. Release: 5000."""
    betas: Pair[Fraction] = [0.9, 0.96]
    """Betas of Adam. Paper: the same."""
    weight_decay: NonNegativeFloat = 4.5e-2
    """Decoupled weight decay."""
    grad_clip: PositiveFloat | None = 1.0
    """Maximum norm of the gradient; null: no clipping, as in the paper."""
    ema_decay: Fraction = 0.99
    """Decay of the moving average of the weights. Release: 0.999."""
    mask_schedule: Schedule = "cosine"
    """Mask schedule γ to train MaskGIT with. Paper: cosine."""
    min_masking_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Lower bound of the mask ratio in training. Paper: none; release: 0.5."""
    loss_on: Literal["masked", "all"] = "masked"
    """Tokens that the loss includes. Paper: masked."""
    label_drop: Fraction = 0.0
    """Share of images whose class is hidden, for classifier-free guidance. Paper: 0."""
    bf16: Bf16 = True
    """bfloat16 autocast. On CPUs, `true`: only if faster; `force`: always (docs/presets.md)."""
    compile: bool = False
    """torch.compile of the transformer, for GPUs; needs Python's headers and a C compiler."""
    label_smoothing: Fraction = 0.1
    """Label smoothing. Paper: 0.1."""
    other_label_smoothings: Distinct[Fraction] = [0.0]
    """Other label smoothings to train MaskGIT and VQGAN∗ with (an ablation)."""
    checkpoint_every: CheckpointEvery = 200


class Draw(Section):
    softmax_temperature: SoftmaxTemperature = 1.0
    """Divides the logits when tokens are drawn. Paper: 1."""
    top_k: NonNegativeInt = 0
    """Draw from the k most probable codes; 0: all codes."""
    top_p: Share = 1.0
    """Draw from the fewest codes whose total probability reaches p."""


class Autoregressive(Draw):
    """The baseline VQGAN∗: MaskGIT's architecture and training, but causal, in raster order."""

    steps: PositiveInt = 600
    """Training steps. For a fair comparison, use the value of training.steps."""
    bf16: Bf16 = False
    """Sample in bfloat16; the key-value cache may then change some tokens."""


class Ray(Section):
    """Workers and devices (docs/cluster.md)."""

    num_workers: PositiveInt = 1
    """Data-parallel workers of a training run; in other stages, processes that compute batches."""
    cpus_per_worker: PositiveInt = 1
    """CPUs and threads per worker."""
    loaders_per_worker: NonNegativeInt = 0
    """Processes per worker that load images, each on its own CPU; 0: load in threads."""
    use_gpu: bool = False
    """Give one GPU to each worker and to the stage's own process."""
    elastic: bool = False
    """Resume training runs after the number of workers has changed, instead of restarting them."""
    max_failures: NonNegativeInt = 2
    """Maximum restarts of a training run that lost workers."""
    storage_path: Annotated[Text, AfterValidator(_storage)] = "runs"
    """Folder for run directories, or object store (`s3://`, `gs://`) for checkpoints and models."""

    @property
    def folder(self) -> str:
        return RUNS if is_store(self.storage_path) else self.storage_path

    @property
    def not_in_key(self) -> tuple[str, ...]:
        """Params that may change without restarting training runs, if `elastic` is true."""
        return WHO if self.elastic else ()


class Decoding(Draw):
    """Iterative decoding of MaskGIT (section 3.2)."""

    iterations: PositiveInt = 8
    """T, the number of decoding iterations. Paper: 8 at 256×256, 12 at 512×512."""
    choice_temperature: NonNegativeFloat = 4.5
    """Initial scale of the Gumbel noise on the confidence; the scale decreases to 0."""
    rounding: Literal["floor", "ceil"] = "floor"
    """Rounding of the number of tokens to mask. Release: floor; paper: ceil."""
    guidance_scale: NonNegativeFloat = 0.0
    """Classifier-free guidance s: (1 + s)·conditional − s·unconditional logits. Paper: 0."""
    guidance_schedule: Annotated[str, _names(GUIDANCE)] = "constant"
    """Change of the guidance scale over the iterations: `constant`, `linear` or `power_cosine`."""
    sampler: Annotated[str, _names(SAMPLERS)] = "confidence"
    """Rule that chooses the tokens to mask again (docs/samplers.md). Paper: confidence."""
    remasking: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Remasking strength η, for the samplers `remask_capped` and `remask_rescaled`."""
    softmax_temperature_end: SoftmaxTemperature | None = None
    """Softmax temperature in the last iteration, after a linear change; null: no change."""
    bf16: Bf16 = True
    """bfloat16 autocast; values: see training.bf16."""
    batch_size: PositiveInt = 250
    """Images decoded at once."""


class Sweep(Section):
    """The ablation of mask schedules (Table 3, Figure 8)."""

    schedules: Grid[Schedule] = [*SEVEN]
    """Mask schedules to train with. Paper: the same. Also possible: arccos."""
    iterations: Grid[PositiveInt] = [1, 2, 4, 8, 12, 24]
    """Values of T to decode each model with."""
    seeds: Grid[Seed] = [0, 1, 2]
    """Seeds to train each schedule with."""
    crossed: Distinct[Schedule] = ["cubic", "cosine", "linear", "square_root"]
    """Schedules to cross: train with one, decode with another (T: decoding.iterations)."""
    designs: list[dict[str, Any]] = [{"sampler": OTHERS, "iterations": [4, 8]}]
    """Further decoding settings, as a list of grids (docs/samplers.md). A grid's keys are params of
    the section decoding, `schedule` (of training and decoding) or `steps` (of training)."""
    steps: Steps = 250
    samples: PositiveInt = 320
    """Samples per schedule, T and seed."""
    workers_per_trial: PositiveInt | None = 1
    """Workers per training run; null (only if ray.elastic is true): ray.num_workers."""


class Oracle(Section):
    """Decoding with a known distribution's exact conditional probabilities, without a network."""

    grids: Grid[Annotated[int, Field(ge=4)]] = [8, 16]
    """Sides of the token grids, which are read row by row; a side of 8 means N = 64."""
    total_tokens: PositiveInt = 51200
    """Tokens to draw for each N and decoding setting: 51200 gives 800 samples at N = 64."""
    designs: list[dict[str, Any]] = [
        {"sampler": ["confidence", "random"], "iterations": [*FEW], "schedule": [*SEVEN]},
        {"choice_temperature": [1.0, 10.0], "iterations": [*FEW]},
        {"sampler": ["entropy", "margin", "halton", "remask_capped"], "iterations": [4, 8, 16, 32]},
    ]
    """Grids of decoding settings, as in sweep.designs. Omitted settings: the release's values."""

    @property
    def tokens(self) -> list[int]:
        """Token counts N, one per side in `grids`."""
        return [side**2 for side in self.grids]


class Evaluation(Section):
    """The metrics of Table 1."""

    extractor: Literal["classifier", "inception"] = "classifier"
    """Network for FID, IS, KID, precision and recall."""
    second_extractor: Literal["random", "classifier", "inception", "vgg"] = "random"
    """Network for a second set of precision and recall; `random`: an untrained classifier."""
    inception_weights: Text | None = None
    """torch-fidelity's Inception weights; null: download."""
    vgg_weights: Text | None = None
    """torchvision's VGG-16 weights; null: download."""
    reference_statistics: Text | None = None
    """Reference statistics for FID (ADM's .npz format); null: from training images."""
    seeds: Grid[Seed] = [0, 1, 2]
    """Seeds to train and sample MaskGIT and the baseline with."""
    samples: PositiveInt = 1000
    """Samples per model. Paper: 50,000."""
    labels: Literal["training", "uniform"] = "training"
    """Samples' class frequencies: as in training images, or `uniform` (usual on ImageNet)."""
    keep_samples: bool = True
    """Keep the samples in `runs`, so that adding a seed does not redraw other seeds' samples."""
    neighbors: PositiveInt = 3
    """Number of nearest neighbours, k, for precision, recall, density and coverage."""
    manifold_images: PositiveInt = 10000
    """Maximum number of samples or reference images for precision, recall, density and coverage."""
    is_splits: PositiveInt = 1
    """Splits of the Inception Score. ADM: 5,000 samples per split."""
    kid_subsets: PositiveInt = 20
    """Number of random subsets that KID is averaged over."""
    kid_subset_size: Annotated[int, Field(ge=2)] = 100
    """Images per subset; sets with fewer images get no KID."""
    halves: Annotated[int, Field(ge=2)] = 20
    """Number of random halves of the images, measured to estimate metrics' standard deviations."""


class Cas(Section):
    """Classification Accuracy Score: classifiers trained on real images or on samples."""

    samples: PositiveInt = 4000
    """Training images per classifier."""
    steps: Steps = 150
    workers_per_classifier: PositiveInt | None = 1
    """Workers per classifier; null (only if ray.elastic is true): ray.num_workers."""


class Temperature(Section):
    """Comparison of sampling settings."""

    values: Grid[NonNegativeFloat] = [0.0, 1.0, 2.0, 4.5, 8.0, 12.0]
    """Choice temperatures of MaskGIT; 0: always keep the most confident tokens."""
    softmax_temperatures: Grid[SoftmaxTemperature] = [1.0, 0.8]
    """Softmax temperatures of the baseline."""
    top_k: Grid[NonNegativeInt] = [0, 16]
    """Values of the baseline's top_k to combine with each softmax temperature; 0: all codes."""
    samples: PositiveInt = 1000
    """Samples per setting and seed."""


class Editing(Section):
    """Inpainting and outpainting of validation images (Table 2, Figures 6 and 7)."""

    images: PositiveInt = 200
    """Validation images per editing task."""
    iterations: Iterations = 8
    dilate: NonNegativeInt = 0
    """Number of tokens by which the mask grows on each side. Release: 1."""
    feather: NonNegativeInt = 2
    """Width in pixels of the blend around a mask."""


class Rejection(Section):
    """Rejection sampling by the reference classifier (Table 4)."""

    acceptance: Grid[Share] = [1.0, 0.5, 0.2, 0.05]
    """Shares of each class's samples to keep. Paper: 0.05."""


class Reconstruction(Section):
    """Reconstruction of validation images from part of their tokens (Figure 10)."""

    images: PositiveInt = 50
    """Validation images."""
    mask_ratios: Grid[Annotated[float, Field(ge=0, le=1)]] = [0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95]
    """Shares of the tokens that are masked."""
    draws: PositiveInt = 5
    """Samples per image; the samples' pixel-wise median is also measured."""
    iterations: Iterations = 8


class Speed(Section):
    """Time to decode an image, by number of tokens (Figure 4)."""

    grids: Grid[PositiveInt] = [4, 7, 12]
    """Sides of the token grids."""
    batch_sizes: Grid[PositiveInt] = [1, 8]
    """Images decoded at once."""
    repeats: PositiveInt = 8
    """Timed runs after one warm-up; the median is reported."""


class Mlflow(Section):
    experiment: Text = "maskgit"
    """Name of the MLflow experiment."""
