"""The sections of params.yaml: the type, the default and the meaning of every param.

`python docs/params.py` writes docs/params.md from them.
"""

import difflib
import os
import re
import reprlib
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
    ValidationError,
    model_validator,
)

from pipeline.runtime.dag import WHO
from pipeline.runtime.errors import UserError
from pipeline.runtime.limits import CODES, SEED
from pipeline.runtime.project import RUNS, is_store
from pipeline.runtime.secrets import redacted


def _known_schedule(name: str) -> str:
    from pipeline.schedules import SCHEDULES

    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule '{name}'; use one of {', '.join(SCHEDULES)}")
    return name


def _known_source(name: str) -> str:
    from pipeline.prepare.datasets import source_form

    source_form(name)  # raises ValueError
    return name


def _known_architecture(name: str) -> str:
    kind, _, network = name.partition(":")
    known = []
    if kind == "torchvision":
        from torchvision import models  # takes seconds to import

        known = models.list_models(module=models, include=("resne[tx]*", "wide_resnet*"))
    if name != "small" and network not in known:
        raise ValueError(
            f"unknown architecture '{name}'; use small, or torchvision:NAME with the name of a "
            f"ResNet, such as torchvision:resnet50"
        )
    return name


def _folder(path: str) -> str:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path):
        raise ValueError(
            f"'{redacted(path)}' is an address of an unsupported kind; give a folder, or for "
            f"ray.storage_path s3://bucket/folder or gs://bucket/folder"
        )
    return os.path.expanduser(path)


def _storage(path: str) -> str:
    if not is_store(path):
        return _folder(path)
    if not re.fullmatch(r"\w+://[\w.-]+(/[\w.=+-]+)*/?", path):
        raise ValueError(
            f"'{redacted(path)}' is not an address of an object store; write s3://bucket/folder or "
            f"gs://bucket/folder, and keep keys in the environment (docs/cluster.md)"
        )
    return path


def _distinct(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError("a value is listed twice; list each value once")
    return values


def _ascending(value: list[float]) -> list[float]:
    low, high = value
    if low > high:
        raise ValueError(f"{low} is above {high}; give [low, high]")
    return value


# The paper's (Table 3).
SEVEN = ("exponential", "cubic", "square", "cosine", "linear", "square_root", "logarithmic")
Value = TypeVar("Value")
Text = Annotated[str, Field(min_length=1)]
Schedule = Annotated[str, AfterValidator(_known_schedule)]
Seed = Annotated[int, Field(ge=0, le=SEED)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
SpikeFactor = Annotated[float, Field(gt=1)] | None
Pair = Annotated[list[Value], Field(min_length=2, max_length=2)]
Distinct = Annotated[list[Value], AfterValidator(_distinct)]
Grid = Annotated[Distinct[Value], Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Data(Section):
    source: Annotated[Text, AfterValidator(_known_source)] = "mnist5k"
    """mnist5k (5,000 digits, no download), torchvision:NAME, or folder:PATH with one subfolder a
    class, with or without train/ and val/ above them."""
    download_dir: Annotated[Text, AfterValidator(_folder)] = "data/raw"
    """Folder that torchvision downloads data sets to."""
    image_size: PositiveInt = 28
    """Side of the square images in pixels; divisible by 2^(len(tokenizer.multipliers) - 1)."""
    channels: Literal[1, 3] = 1
    """1 for grey, 3 for RGB."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of each class that is held out if the source has no validation split."""
    shard_size: PositiveInt = 1024
    """Images in a shard file."""
    crop_scale: Annotated[Pair[Share], AfterValidator(_ascending)] = [0.8, 1.0]
    """RandomResizedCrop: range of the crop's area as a share of the image's. Paper: not given."""
    crop_ratio: Annotated[Pair[PositiveFloat], AfterValidator(_ascending)] = [0.9, 1.1111]
    """RandomResizedCrop: range of the crop's aspect ratio. Paper: not given."""
    flip: bool = False
    """Mirror images at random (not useful for digits)."""

    @property
    def folder(self) -> str:
        """The folder of a folder source."""
        kind, _, argument = self.source.partition(":")
        return argument if kind == "folder" else ""


class Classifier(Section):
    """The reference classifier: features for metrics, and the perceptual loss of small images."""

    architecture: Annotated[str, AfterValidator(_known_architecture)] = "small"
    """small (a residual network for small images), or a ResNet, such as torchvision:resnet50."""
    width: PositiveInt = 16
    """Channels of the small network's first stage; its features have 4 × width dimensions."""
    crop_scale: Annotated[Pair[Share], AfterValidator(_ascending)] = [0.8, 1.0]
    """As data.crop_scale, for classifiers. Commonly 0.08 to 1 for ResNet-50 on ImageNet."""
    steps: PositiveInt = 400
    """Training steps."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Images in a step."""
    lr: PositiveFloat = 4e-3
    """Peak learning rate of AdamW under a one-cycle schedule."""
    weight_decay: NonNegativeFloat = 0.05
    """Decoupled weight decay; 0 for none."""
    label_smoothing: Fraction = 0.1
    """Share of the target that is spread over all classes; 0 for none."""
    spike_factor: SpikeFactor = None
    """As training.spike_factor."""
    bf16: bool = True
    """bfloat16 autocast, as training.bf16."""
    checkpoint_every: PositiveInt = 100
    """Steps between checkpoints, which are also the points of the logged curves."""


class Tokenizer(Section):
    """The VQGAN."""

    pretrained: Text | None = None
    """Use these weights instead of training: the authors' checkpoint, the PyTorch port
    maskgit-vqgan-imagenet-f16-256.bin, or safetensors. The architecture below must be theirs."""
    filters: Annotated[int, Field(ge=32, multiple_of=32)] = 32
    """Channels of the first level; a multiple of 32, the groups of GroupNorm. Release: 128."""
    multipliers: Annotated[list[PositiveInt], Field(min_length=1)] = [1, 1, 2]
    """Channel multiplier of each level; all but the first halve the side. Release: 1,1,2,2,4."""
    res_blocks: PositiveInt = 1
    """Residual blocks in a level and in the middle. Release: 2."""
    embedding_dim: PositiveInt = 16
    """Dimension of a code. Release: 256."""
    codebook_size: Annotated[int, Field(ge=2, le=CODES)] = 64
    """Number of codes K. Paper: 1024."""
    steps: PositiveInt = 800
    """Training steps. Release: 1M."""
    batch_size: PositiveInt = 64
    """Images in a step. Release: 256."""
    lr: PositiveFloat = 1e-3
    """Learning rate of Adam for the tokenizer and the discriminator. Release: 1e-4."""
    betas: Pair[Fraction] = [0.0, 0.99]
    """Betas of Adam. Release: 0.0, 0.99."""
    ema_decay: Fraction = 0.99
    """Decay of the exponential moving average of the weights, which is published."""
    perceptual: Literal["classifier", "lpips_vgg", "lpips_alex", "lpips_squeeze"] = "classifier"
    """Network of the perceptual loss: the reference classifier, or LPIPS (a download)."""
    perceptual_weight: NonNegativeFloat = 0.1
    """Weight of the perceptual loss. Release: 0.1, of its own network."""
    commitment_weight: NonNegativeFloat = 0.25
    """Weight of the commitment loss. Release: 0.25."""
    entropy_weight: NonNegativeFloat = 0.1
    """Weight of the entropy loss. Release: 0.1."""
    entropy_temperature: PositiveFloat = 0.01
    """Temperature of the softmax over distances to the codes. Release: 0.01."""
    revive_after: PositiveInt = 50
    """Steps after which an unused code is moved onto an output of the encoder."""
    adversarial_weight: NonNegativeFloat = 0.05
    """Weight of the generator's non-saturating GAN loss. Release: 0.1."""
    adversarial_start: NonNegativeInt = 400
    """Step at which the discriminator joins; its weight ramps up in as many steps, at most 1000."""
    adaptive_weight: bool = False
    """Multiply adversarial_weight by VQGAN's λ, a ratio of the gradients' norms. Release: false;
    VQGAN, whose set-up the paper names: true, with adversarial_weight 0.8."""
    r1_weight: NonNegativeFloat = 0.5
    """Weight of the R1 penalty ‖∇D‖². Release: 10, which is too much for small images."""
    r1_every: PositiveInt = 8
    """Steps between R1 penalties; the weight is multiplied by this number."""
    discriminator: Literal["patch", "stylegan"] = "patch"
    """patch (four convolutions, for small images), or stylegan (release; sides of 2^n pixels)."""
    discriminator_filters: PositiveInt = 16
    """Channels of its first convolution; later ones have more. Release: 64 at 256×256 pixels."""
    spike_factor: SpikeFactor = None
    """As training.spike_factor; the discriminator skips the same steps."""
    bf16: bool = True
    """bfloat16 autocast, as training.bf16, but not of the discriminator."""
    tf32: bool = False
    """Let a GPU use TF32 in float32 convolutions, which makes the discriminator much faster."""
    checkpoint_every: PositiveInt = 100
    """Steps between checkpoints and points of the curves."""

    @property
    def downsampling(self) -> int:
        return 2 ** (len(self.multipliers) - 1)


class Tokens(Section):
    """The token cache that the transformers are trained on."""

    crops_per_image: PositiveInt = 4
    """Random crops of each training image that are encoded and cached."""
    bf16: bool = False
    """Encode in bfloat16 where the device is faster in it; some tokens differ (0.6% here)."""
    batch_size: PositiveInt = 256
    """Images encoded at once."""


class Transformer(Section):
    """The network of MaskGIT and of the autoregressive baseline."""

    pretrained: Text | None = None
    """Weights to use instead of training, as tokenizer.pretrained; the sweep then only decodes."""
    layers: PositiveInt = 2
    """Number of layers. Paper: 24."""
    hidden: Annotated[int, Field(ge=2)] = 128
    """Dimension of a token; a multiple of heads. Paper: 768."""
    heads: PositiveInt = 4
    """Attention heads in a layer. Paper: 8; release: 16."""
    mlp: PositiveInt = 256
    """Hidden dimension of a layer's MLP. Paper: 3072."""
    dropout: Fraction = 0.0
    """Dropout rate in training. Paper: 0.1, which makes a step slower here."""

    @model_validator(mode="after")
    def _heads_divide(self):
        if self.hidden % self.heads:
            raise ValueError(
                f"{self.heads} heads do not divide hidden {self.hidden}; use a divisor"
            )
        return self


class Training(Section):
    """Training of both transformers."""

    steps: PositiveInt = 600
    """MaskGIT's training steps. Paper: 300 epochs of ImageNet, about 1.5M steps at batch 256."""
    batch_size: PositiveInt = 64
    """Images in a step, over all workers. Paper: 256."""
    accumulate: PositiveInt = 1
    """Microbatches of a worker's images, to save memory; the gradient is that of all of them."""
    lr: PositiveFloat = 4e-3
    """Peak learning rate. Release: 1e-4; small models and short runs learn fastest at 4e-3."""
    warmup_steps: NonNegativeInt = 50
    """Steps in which the learning rate rises linearly to its peak. Release: 5000."""
    betas: Pair[Fraction] = [0.9, 0.96]
    """Betas of Adam. Paper: 0.9, 0.96."""
    weight_decay: NonNegativeFloat = 4.5e-2
    """Decoupled weight decay. Release: 4.5e-2; the paper gives none."""
    grad_clip: PositiveFloat | None = 1.0
    """Global norm that gradients are clipped to; null for none. Paper: none; others: 1."""
    spike_factor: SpikeFactor = None
    """After 100 steps, skip a step whose loss or gradient norm is not finite, or larger than this
    factor times its running mean; 3, for example, for long runs. null skips none."""
    ema_decay: Fraction = 0.99
    """Decay of the exponential moving average of the weights. Release: 0.999."""
    mask_schedule: Schedule = "cosine"
    """Schedule γ of the main model; sweep.schedules lists the names. Paper: cosine."""
    min_masking_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Lower bound of the mask ratio in training. Paper: none; release: 0.5."""
    loss_on: Literal["masked", "all"] = "masked"
    """Loss on the masked tokens, as in the paper, or on all tokens."""
    label_drop: Fraction = 0.0
    """Share of images whose class is hidden, for classifier-free guidance. Paper: none."""
    bf16: bool = True
    """bfloat16 autocast, on a CPU only if it multiplies bfloat16 (docs/presets.md)."""
    bf16_gradients: bool = False
    """Send gradients between workers in bfloat16, which halves the bytes."""
    compile: bool = False
    """torch.compile of the transformer, for GPUs; needs Python's headers and a C compiler."""
    label_smoothing: Fraction = 0.1
    """Label smoothing of both networks. Paper: 0.1."""
    other_label_smoothings: Distinct[Fraction] = [0.0]
    """Other values that both networks are trained with too, for an ablation; [] for none."""
    checkpoint_every: PositiveInt = 200
    """Steps between checkpoints and points of the curves."""


class Autoregressive(Section):
    """The baseline VQGAN∗: the same architecture and training, causal, in raster order."""

    steps: PositiveInt = 600
    """Training steps; as many as training.steps for a fair comparison."""
    bf16: bool = False
    """bfloat16 autocast in sampling. In float32, the key-value cache changes no token."""


class Ray(Section):
    """Workers and devices; docs/cluster.md explains how to choose them."""

    num_workers: PositiveInt = 1
    """Data-parallel workers of a training, and processes that other stages share batches among."""
    cpus_per_worker: PositiveInt = 1
    """CPUs of a worker, and its threads."""
    loaders_per_worker: NonNegativeInt = 0
    """How many of these CPUs load images in processes; 0 loads them in threads. Same images."""
    use_gpu: bool = False
    """One GPU for each worker, and for the stage's own process; false uses none."""
    elastic: bool = False
    """Resume a training after a change of its workers, though its results depend on when that was.
    false trains again, so that equal params give equal bytes. Choose it before the first run."""
    max_failures: NonNegativeInt = 2
    """Restarts of a training after a worker is lost."""
    storage_path: Annotated[Text, AfterValidator(_storage)] = "runs"
    """Folder of run directories that every node sees, or s3://bucket/folder or gs://bucket/folder
    for checkpoints and models, with run directories in runs."""

    @property
    def folder(self) -> str:
        """The folder of run directories: an object store only gets copies."""
        return RUNS if is_store(self.storage_path) else self.storage_path

    @property
    def not_in_key(self) -> tuple[str, ...]:
        """The params that a run's key leaves out, since elastic trainings resume after a change."""
        return WHO if self.elastic else ()


class Decoding(Section):
    """Iterative decoding of the main model (section 3.2)."""

    iterations: PositiveInt = 8
    """T. Paper: 8 at 256×256, 12 at 512×512."""
    choice_temperature: NonNegativeFloat = 4.5
    """Scale of the Gumbel noise on the confidence, annealed to 0. Release: 4.5."""
    rounding: Literal["floor", "ceil"] = "floor"
    """Rounding of the number of tokens to mask: floor (release), or ceil (paper: ⌈γ(t/T)·N⌉)."""
    guidance_scale: NonNegativeFloat = 0.0
    """Classifier-free guidance s: (1 + s)·conditional − s·unconditional logits. Paper: 0."""
    bf16: bool = True
    """bfloat16 autocast of the transformer, as training.bf16."""
    batch_size: PositiveInt = 250
    """Images decoded at once."""


class Sweep(Section):
    """The ablation of mask schedules (Table 3, Figure 8)."""

    schedules: Grid[Schedule] = [*SEVEN]
    """Mask schedules to train with. Paper: these seven. Also: arccos."""
    iterations: Grid[PositiveInt] = [2, 4, 8, 12, 24]
    """Values of T; each trained model is decoded with all of them."""
    seeds: Grid[Seed] = [0, 1, 2]
    """Seeds; each schedule is trained once with each."""
    crossed: Distinct[Schedule] = ["cubic", "cosine", "linear", "square_root"]
    """Schedules whose models are decoded with each other's γ too, with T = decoding.iterations."""
    steps: PositiveInt = 250
    """Training steps of each training."""
    samples: PositiveInt = 320
    """Samples of each schedule, T and seed."""
    workers_per_trial: PositiveInt | None = 1
    """Workers of a training; null, with ray.elastic, for the fewest that keep all workers busy."""


class Evaluation(Section):
    """Metrics of Table 1."""

    extractor: Literal["classifier", "inception"] = "classifier"
    """Features of FID, IS, KID, precision and recall."""
    second_extractor: Literal["random", "classifier", "inception", "vgg"] = "random"
    """Features of a second precision and recall; random: the classifier with random weights. Paper:
    VGG in Table 1, Inception in Table 5."""
    inception_weights: Text | None = None
    """File of torch-fidelity's Inception weights; null downloads it."""
    vgg_weights: Text | None = None
    """File of torchvision's VGG-16 weights; null downloads it."""
    reference_statistics: Text | None = None
    """ADM .npz file of reference statistics for FID; null takes the training images."""
    bf16: bool = False
    """Compute features in bfloat16 where the device is faster in it; FIDs differ by 0.01 here."""
    seeds: Grid[Seed] = [0, 1, 2]
    """Seeds; both networks are trained and sampled once with each, and tables show the spread."""
    samples: PositiveInt = 1000
    """Samples of each model. Paper: 50,000."""
    labels: Literal["training", "uniform"] = "training"
    """Classes of samples: as often as in the training images, or uniform, as usual on ImageNet."""
    keep_samples: bool = True
    """Keep a copy of data/samples in run directories, so that one more seed samples only itself."""
    neighbors: PositiveInt = 3
    """k of the nearest neighbors in precision, recall, density and coverage."""
    manifold_images: PositiveInt = 10000
    """Maximum number of images on each side for precision, recall, density and coverage."""
    is_splits: PositiveInt = 1
    """Splits of the Inception Score. The paper gives none; ADM averages splits of 5,000 samples."""
    kid_subsets: PositiveInt = 20
    """Random subsets that KID is averaged over."""
    kid_subset_size: Annotated[int, Field(ge=2)] = 100
    """Images in a subset; sets with fewer images have no KID."""
    halves: Annotated[int, Field(ge=2)] = 20
    """Random halves of a set that the spread of its metrics is computed from."""


class Cas(Section):
    """Classification Accuracy Score: classifiers that are trained on samples only, one for each of
    evaluation.seeds, set of images (MaskGIT's, the baseline's, real ones) and augmentation."""

    samples: PositiveInt = 4000
    """Images that each classifier is trained on."""
    steps: PositiveInt = 150
    """Training steps of each classifier."""
    workers_per_classifier: PositiveInt | None = 1
    """As sweep.workers_per_trial."""


class Temperature(Section):
    """Samples of the main model at several values of decoding.choice_temperature."""

    values: Grid[NonNegativeFloat] = [0.0, 1.0, 2.0, 4.5, 8.0, 12.0]
    """Choice temperatures; 0 always takes the most confident tokens."""
    samples: PositiveInt = 1000
    """Samples of each value and seed."""


class Editing(Section):
    """In- and outpainting of validation images (Table 2, Figures 6 and 7)."""

    images: PositiveInt = 200
    """Images of each task; at most the validation split."""
    iterations: PositiveInt = 8
    """T. The paper gives none; the large presets use as many as for generation."""
    dilate: NonNegativeInt = 0
    """Tokens by which a mask grows on each side. Release: 1, too many for a 7×7 grid."""
    feather: NonNegativeInt = 2
    """Width of the blend around a mask in pixels."""


class Rejection(Section):
    """Rejection sampling by the reference classifier (Table 4)."""

    acceptance: Grid[Share] = [1.0, 0.5, 0.2, 0.05]
    """Shares of each class's samples that are kept. Paper: 0.05."""


class Reconstruction(Section):
    """Validation images decoded from a part of their tokens (Figure 10)."""

    images: PositiveInt = 50
    """Images of the validation split."""
    mask_ratios: Grid[Annotated[float, Field(ge=0, le=1)]] = [0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95]
    """Shares of the tokens that are masked."""
    draws: PositiveInt = 5
    """Samples of each image; their median is a reconstruction too."""
    iterations: PositiveInt = 8
    """T."""


class Speed(Section):
    """Time to decode an image against the number of tokens (Figure 4)."""

    grids: Grid[PositiveInt] = [4, 7, 12]
    """Sides of the token grids."""
    batch_sizes: Grid[PositiveInt] = [1, 8]
    """Images decoded at once."""
    repeats: PositiveInt = 8
    """Timings of which the median is taken, after one warm-up."""


class Analysis(Section):
    dpi: Annotated[int, Field(ge=10)] = 150
    """Resolution of the figures in dots per inch."""
    best_by: Literal["fid", "is"] = "fid"
    """Metric that selects the best T of a schedule."""


class Mlflow(Section):
    experiment: Text = "maskgit"
    """Experiment that runs are logged to."""


def user_error(error: ValidationError, model: type[BaseModel] | None = None) -> UserError:
    """The first mistake as `key: reason; way out`; unknown keys come first.

    Args:
        model: where to look for a key that is close to an unknown one.
    """
    errors: list[Any] = error.errors(include_url=False)
    first = min(errors, key=lambda each: each["type"] != "extra_forbidden")
    key, reason = first["loc"], first["msg"].removeprefix("Value error, ")
    reason, _, way_out = reason.partition("; ")
    if first["type"] == "extra_forbidden":
        for name in key[:-1]:
            model = model and model.model_fields[name].annotation
        close = difflib.get_close_matches(str(key[-1])[:100], model.model_fields if model else ())
        reason, way_out = "unknown key", f"did you mean {close[0]}?" if close else "remove it"
    elif not way_out:
        reason, way_out = f"{reason} (given: {reprlib.repr(first['input'])})", "correct it"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return UserError(".".join(map(str, key)), reason, way_out + more)
