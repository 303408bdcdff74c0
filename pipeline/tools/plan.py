"""`maskgit plan`: estimates the parameters, FLOPs, disk and time of a run with given params.

Only matrix products and convolutions count; a multiply-add is two FLOPs. A training step counts as
three forward passes, because a backward pass does twice the work of a forward pass. Validation,
metrics, communication and reading data are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES
from pipeline.config.replicates import NETWORKS, NetworkName, replicates
from pipeline.runtime import limits
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json

EDITS = 5  # number of editing tasks in the stage `edit`
CAS_SETS = 6  # MaskGIT's samples, the baseline's and real images: each augmented or not
PNG = 0.7  # size of a sample's PNG file, as a share of the size of the raw pixels
FEATURES = {"inception": 2048 + 1008, "vgg": 4096}  # numbers that `features` stores per image
LPIPS = {"vgg": 612e3, "alex": 26e3, "squeeze": 10e3}  # FLOPs per pixel of LPIPS's convolutions
# Dense bfloat16 FLOP/s in NVIDIA's data sheets, and the assumed share that a run reaches.
PEAKS = {"L4": 121e12, "A100": 312e12, "L40S": 362e12, "H100": 989e12, "H200": 989e12}
SHARE = 0.3
CORE = 1e11  # FLOP/s of a CPU core with AVX-512 BF16, measured with the default run's networks


@dataclass(frozen=True)
class DataSize:
    """The numbers of images and classes in a data set, and where these numbers are from."""

    train: int  # number of training images
    val: int  # number of validation images
    classes: int
    origin: str  # source of the numbers
    shard_bytes: int = 0  # size of the prepared images; 0 before the stage `prepare`


# Published numbers of training images (all images, if no split exists), validation images, classes.
KNOWN: dict[str, tuple[int, int | None, int]] = {
    "mnist5k": (5_000, None, 10),
    "torchvision:CIFAR10": (50_000, 10_000, 10),
    "folder:data/raw/imagenet": (1_281_167, 50_000, 1000),
    "folder:data/raw/places2": (1_803_460, 36_500, 365),
}


def data_size(params: Params, images: int | None = None, classes: int | None = None) -> DataSize:
    """The numbers of images and classes in `data.source`: from the arguments if given, else from
    the prepared images, else from `KNOWN` (published sizes of data sets). The argument `images`
    counts training and validation images; the share `data.val_fraction` is for validation. Raises
    a `UserError` if a number is unknown, or if there are fewer training images than classes."""
    source, manifest, size = params.data.source, IMAGES / "manifest.json", 0
    known, origin = KNOWN.get(source), "published size"
    if images is not None:
        known, origin = (images, None, known[2] if known else 0), "as given"
    elif manifest.exists() and (prepared := read_json(manifest)).get("source") == source:
        counts = [sum(prepared["counts"][split].values()) for split in ("train", "val")]
        known, origin = (*counts, len(prepared["class_names"])), str(IMAGES)
        size = sum(file.stat().st_size for file in IMAGES.iterdir())
    train, val, own = known or (0, 0, 0)
    classes = classes or own
    if not train or not classes:
        way_out = "run `dvc repro prepare`, or give --images and --classes"
        raise UserError(source, "the number of images or classes is unknown", way_out)
    if val is None:
        val = round(params.data.val_fraction * train)
        train -= val
    if train < classes:
        reason = f"{train} training images are too few for {classes} classes"
        raise UserError("--images", reason, "give more images")
    return DataSize(train, val, classes, origin, size)


@dataclass(frozen=True)
class Costs:
    """FLOPs of a forward pass of one image, and number of parameters, for each network."""

    encode: int
    decode: int
    discriminator: int
    classifier: int
    body: int  # the transformer without its head, for MaskGIT and the baseline
    head: int  # the transformer's head, for one token
    parameters: dict[str, int]
    features: int  # number of features plus number of logits of the reference classifier


def costs(params: Params, classes: int) -> Costs:
    """Count FLOPs with PyTorch's `FlopCounterMode` on the meta device, which allocates no
    weights."""
    import torch

    from pipeline.classifier import Classifier
    from pipeline.tokenizer import Tokenizer
    from pipeline.tokenizer.discriminator import make_discriminator
    from pipeline.transformer import MaskGitTransformer
    from pipeline.weights.configs import classifier_config, tokenizer_config, transformer_config

    data, tokenizer, grid = params.data, params.tokenizer, params.grid
    side, filters = data.image_size, tokenizer.discriminator_filters
    config = transformer_config(params, classes)
    with torch.device("meta"), torch.no_grad():
        coder = Tokenizer(tokenizer_config(params))
        judge = make_discriminator(tokenizer.discriminator, data.channels, filters, side)
        classifier = Classifier(classifier_config(params, classes)).eval()
        transformer = MaskGitTransformer(config)
        image = torch.empty(1, data.channels, side, side)
        codes = torch.empty(1, grid, grid, dtype=torch.long)
        sequence = torch.empty(1, config.num_tokens + 1, dtype=torch.long)
        networks = {
            "tokenizer": coder,
            "discriminator": judge,
            "transformer": transformer,
            "classifier": classifier,
        }
        return Costs(
            encode=count_flops(coder.encode, image),
            decode=count_flops(coder.decode, codes),
            discriminator=count_flops(judge, image),
            classifier=count_flops(classifier, image),
            body=count_flops(transformer.encode, sequence),
            head=2 * config.hidden * (config.hidden + config.codebook_size),
            parameters={n: sum(p.numel() for p in of.parameters()) for n, of in networks.items()},
            features=classifier.head.in_features + classifier.head.out_features,
        )


def count_flops(run: Callable[..., object], *inputs: object) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run(*inputs)
    return counter.get_total_flops()


class Plan:
    """Estimates the work and the outputs of a run with given params. Raises a `UserError` if `gpu`
    is unknown or `tflops` is out of range.

    Args:
        gpu: name of the GPU; None for an A100 if `ray.use_gpu` is true, else for the CPU.
        tflops: achieved rate of one device, in 10¹² FLOP/s; overrides the rate of `gpu`.
    """

    def __init__(
        self, params: Params, size: DataSize, gpu: str | None = None, tflops: float | None = None
    ):
        self.rate, self.device = _device(params, gpu, tflops)
        self.params, self.size, self.costs = params, size, costs(params, size.classes)
        self.trials = len(params.sweep_trainings()) * len(params.sweep.seeds)

    def flops(self) -> dict[str, float]:
        """FLOPs of each stage."""
        p, c, sweep, heated = self.params, self.costs, self.params.sweep, self.params.temperature
        seeds, hidden = len(p.evaluation.seeds), p.reconstruction
        trials = len(sweep.schedules) * len(sweep.seeds)
        guided = 2 if p.decoding.guidance_scale else 1
        one_pass = guided * (c.body + p.num_tokens * c.head)
        drawn = p.decoding.iterations * one_pass + c.decode
        baseline = one_pass / guided + c.decode  # each token is computed once, with a cache
        settings = len(heated.softmax_temperatures) * len(heated.top_k)  # of the baseline
        cells = trials * len(sweep.iterations) + len(sweep.crossed) ** 2 * len(sweep.seeds)
        designs = [each.passes for _, each in p.sweep_designs() for _ in sweep.seeds]
        cells += len(designs)
        passes = trials * sum(sweep.iterations) * guided + sum(designs)
        decoded = passes * (one_pass / guided) + cells * c.decode
        trained = sum(steps * self._step(schedule) for schedule, steps in p.sweep_trainings())
        trained *= p.training.batch_size * len(sweep.seeds)
        edited = EDITS * seeds * min(p.editing.images, self.size.val)
        rebuilt = seeds * min(hidden.images, self.size.val) * hidden.draws * len(hidden.mask_ratios)
        views = self.size.train * p.tokens.crops_per_image + self.size.val
        samples = max(p.evaluation.samples, p.cas.samples)
        evaluated = {network: samples * len(replicates(p, network)) for network in NETWORKS}
        classified = 3 * p.classifier.batch_size * c.classifier
        return {
            "train_classifier": 0 if p.classifier.pretrained else p.classifier.steps * classified,
            "train_tokenizer": self._tokenizer(),
            "cache_tokens": views * c.encode,
            **{f"train_{network}": self._transformer(network) for network in NETWORKS},
            "sweep": (0 if p.transformer.pretrained else trained) + sweep.samples * decoded,
            "evaluate": evaluated["transformer"] * drawn + evaluated["autoregressive"] * baseline,
            "cas": CAS_SETS * seeds * p.cas.steps * classified,
            "temperature": (len(heated.values) * drawn + settings * baseline)
            * (seeds * heated.samples),
            "edit": edited * (p.editing.iterations * one_pass + c.encode + c.decode),
            "reconstruct": rebuilt * (hidden.iterations * one_pass + c.decode),
        }

    def _tokenizer(self) -> float:
        """FLOPs of training the tokenizer. Each image also passes through the perceptual loss's
        network and, from `adversarial_start` on, the discriminator, which is trained too."""
        p, c = self.params.tokenizer, self.costs
        if p.pretrained:
            return 0
        pixels = self.params.data.image_size**2
        lpips = LPIPS.get(p.perceptual.removeprefix("lpips_"), 0) * pixels
        judged = max(p.steps - p.adversarial_start, 0) if p.adversarial_weight else 0
        step = 3 * (c.encode + c.decode + (lpips or c.classifier))
        return p.batch_size * (p.steps * step + judged * 8 * c.discriminator)

    def _transformer(self, network: NetworkName) -> float:
        p = self.params
        if network == "autoregressive":
            steps, each = p.autoregressive.steps, self._step(None)
        else:
            steps = 0 if p.transformer.pretrained else p.training.steps
            each = self._step(p.training.mask_schedule)
        return len(replicates(p, network)) * steps * p.training.batch_size * each

    def _step(self, schedule: str | None) -> float:
        """FLOPs of a training step for one image. The head is computed only for tokens in the loss:
        all tokens if `schedule` is None or `training.loss_on` is "all", else the mean number of
        masked tokens under the schedule."""
        import torch

        from pipeline.schedules import mask_ratio

        p, masked = self.params, float(self.params.num_tokens)
        if schedule and p.training.loss_on != "all":
            r = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
            ratio = mask_ratio(schedule, r, p.num_tokens).clamp(min=p.training.min_masking_rate)
            masked = torch.ceil(ratio * p.num_tokens).mean().item()
        return 3 * (self.costs.body + masked * self.costs.head)

    def disk(self) -> dict[str, tuple[float, float]]:
        """For each stage, the bytes of its outputs and of its files below `ray.storage_path`. The
        second copy of the outputs in DVC's cache is not counted here."""
        p, e, parameters = self.params, self.params.evaluation, self.costs.parameters
        names = ("tokenizer", "transformer", "classifier")
        coder, transformer, classifier = (4 * parameters[name] for name in names)
        live, own = 4 * limits.CHECKPOINTS, not p.transformer.pretrained
        seeds = len(replicates(p, "transformer")) if own else 1
        baselines = len(replicates(p, "autoregressive"))
        published = len(NETWORKS) * len(e.seeds) * max(e.samples, p.cas.samples)
        samples = published * PNG * p.data.channels * p.data.image_size**2
        extractors = {e.extractor, e.second_extractor}
        of_image = 4 * sum(FEATURES.get(name, self.costs.features) for name in extractors)
        grids = self.size.train * p.tokens.crops_per_image + self.size.val
        return {
            "prepare": (self.size.shard_bytes, 0),
            "train_classifier": (classifier, 0 if p.classifier.pretrained else live * classifier),
            "features": (of_image * self.size.train, 0),
            "train_tokenizer": (coder, 0 if p.tokenizer.pretrained else live * coder),
            "cache_tokens": (2 * grids * p.num_tokens, 0),
            "train_transformer": (seeds * transformer, own * seeds * live * transformer),
            "train_autoregressive": (baselines * transformer, baselines * live * transformer),
            "sweep": (0, own * self.trials * (1 + live) * transformer),
            "evaluate": (
                samples,
                samples * e.keep_samples + of_image * (self.size.val + published),
            ),
            "cas": (0, CAS_SETS * len(e.seeds) * (1 + live) * classifier),
        }

    def disk_bytes(self) -> float:
        return sum(2 * outputs + live for outputs, live in self.disk().values())

    def seconds(self, flops: float) -> float:
        return flops / self.rate / self.params.ray.num_workers

    def text(self) -> str:
        from tabulate import tabulate

        p, size, flops, disk = self.params, self.size, self.flops(), self.disk()
        flops["total"] = sum(flops.values())
        lines = [
            f"About {_duration(self.seconds(flops['total']))} on {p.ray.num_workers} × "
            f"{self.device}, and {_scaled(self.disk_bytes())}B of disk (an estimate; nothing was "
            f"trained).",
            f"Rate: {self.rate / 1e12:g} TFLOP/s per device. Measure the rate of your device with "
            f"`make bench`, and pass it as --tflops.",
            "",
            f"preset {p.preset}; {p.data.source}: {size.train:,} + {size.val:,} images of "
            f"{size.classes:,} classes ({size.origin}); {p.grid}×{p.grid} tokens",
            "parameters: " + ", ".join(f"{n} {k:,}" for n, k in self.costs.parameters.items()),
            "",
        ]
        rows = []
        for name in dict.fromkeys((*disk, *flops)):
            of, written = flops.get(name), disk.get(name, (0, 0))
            computed = (f"{_scaled(of)}FLOP", _duration(self.seconds(of))) if of else ("–", "–")
            rows.append(
                [name, *computed, *(f"{_scaled(size)}B" if size else "–" for size in written)]
            )
        headers = ["stage", "computes", "time", "outputs", "live copies"]
        table = tabulate(rows, headers, tablefmt="simple", colalign=("left", *["right"] * 4))
        return "\n".join([*lines, table])


def _device(params: Params, gpu: str | None, tflops: float | None) -> tuple[float, str]:
    """The FLOP/s of one worker, and the name of the worker's device."""
    cores = params.ray.cpus_per_worker
    if tflops is not None:
        if not limits.SMALLEST <= tflops <= limits.LARGEST:
            raise UserError("--tflops", f"{tflops:g} TFLOP/s is outside 1e-12 to 1e30", "try 150")
        return 1e12 * tflops, gpu or ("GPU" if params.ray.use_gpu else "CPU worker")
    if gpu or params.ray.use_gpu:
        name = gpu or "A100"
        if name not in PEAKS:
            reason = f"the FLOP/s of '{name}' are unknown"
            raise UserError("--gpu", reason, f"use {' or '.join(PEAKS)}")
        return SHARE * PEAKS[name], f"{name} ({SHARE:.0%} of its bfloat16 peak)"
    return CORE * cores, f"CPU worker of {cores} core{'s' if cores > 1 else ''}"


def _scaled(value: float) -> str:
    """Format a number with three digits and a decimal prefix, such as 1.25 G."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if value < 999.5:
            return f"{value:.3g} {prefix}"
        value /= 1000
    return f"{value:.4g} Z"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} seconds"
