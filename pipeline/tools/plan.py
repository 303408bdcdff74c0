"""`maskgit plan`: parameters, FLOPs, disk and time of a run with given params, training nothing.

The numbers are estimates. FLOPs are those of matrix products and convolutions, and a multiply-add
counts as two. A training step counts as three forward passes of its images: its backward pass does
twice the work of its forward pass. Validation, communication and reading are left out.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES
from pipeline.config.replicates import NETWORKS, replicates
from pipeline.config.trainings import classifier_count, trial_count
from pipeline.runtime import limits
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json

EDITS = 5  # tasks of the stage `edit`
PNG = 0.7  # bytes of a sample's PNG, as a share of its pixels' bytes
# FLOPs and numbers of the pretrained extractors, of one image (torchvision's documentation).
INCEPTION, VGG = 11.4e9, 30.9e9
SEEN = {"inception": 2048 + 1008, "vgg": 4096}
LPIPS = {"vgg": 612e3, "alex": 26e3, "squeeze": 10e3}  # FLOPs of a pixel, of their convolutions
# Dense bfloat16 FLOP/s by NVIDIA's data sheets, and the share of them that is taken to be reached.
PEAKS = {"L4": 121e12, "A100": 312e12, "L40S": 362e12, "H100": 989e12, "H200": 989e12}
SHARE = 0.3
CORE = 1e11  # FLOP/s of a CPU core with AVX-512 BF16, measured with networks of the default's size


@dataclass(frozen=True)
class DataSize:
    """The size of a data set."""

    train: int  # images
    val: int
    classes: int
    origin: str  # where the numbers are from
    shard_bytes: int = 0  # of the prepared images; 0 before they are prepared


# Published sizes: training images (or all, if no split is published), validation images, classes.
KNOWN: dict[str, tuple[int, int | None, int]] = {
    "mnist5k": (5_000, None, 10),
    "torchvision:CIFAR10": (50_000, 10_000, 10),
    "folder:data/raw/imagenet": (1_281_167, 50_000, 1000),
    "folder:data/raw/places2": (1_803_460, 36_500, 365),
}


def data_size(params: Params, images: int | None = None, classes: int | None = None) -> DataSize:
    """The size of `data.source`: the given one, else that of the prepared images, else the
    published one.

    Args:
        images: number of images in all; `data.val_fraction` of them are held out.
        classes: number of classes.

    Raises:
        UserError: the size is unknown, or there are fewer images than classes.
    """
    source, manifest, size = params.data.source, IMAGES / "manifest.json", 0
    prepared = read_json(manifest) if manifest.exists() else {}
    known, origin = KNOWN.get(source), "published size"
    if prepared.get("source") == source:
        counts = {split: sum(of.values()) for split, of in prepared["counts"].items()}
        known, origin = (counts["train"], counts["val"], len(prepared["class_names"])), str(IMAGES)
        size = sum(file.stat().st_size for file in IMAGES.iterdir())
    classes = classes or (known[2] if known else None)
    if images is not None:
        known, origin, size = (images, None, classes or 0), "as given", 0
    if known is None or not classes:
        raise UserError(
            source, "its size is unknown before `dvc repro prepare`", "give --images and --classes"
        )
    train, val, _ = known
    if val is None:
        val = round(params.data.val_fraction * train)
        train -= val
    if train < classes:
        reason = f"{train} training images are too few for {classes} classes"
        raise UserError("--images", reason, "give at least one image per class")
    return DataSize(train, val, classes, origin, size)


@dataclass(frozen=True)
class Costs:
    """FLOPs of one image's forward pass through each network, and their parameters."""

    encode: int
    decode: int
    discriminator: int
    classifier: int
    body: int  # MaskGIT's transformer without its head, and the baseline's
    head: int  # of one position
    parameters: dict[str, int]
    features: int  # dimensions and classes of the reference classifier


def costs(params: Params, classes: int) -> Costs:
    """Count FLOPs with PyTorch's `FlopCounterMode` on the meta device, which allocates no
    weights."""
    import torch

    from pipeline.classifier import Classifier
    from pipeline.discriminator import make_discriminator
    from pipeline.tokenizer import Tokenizer
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
        tokens = codes.flatten(1)
        head = 2 * config.hidden * (config.hidden + config.codebook_size)
        whole = count_flops(lambda: transformer.predict(tokens, tokens.bool(), tokens[:, 0]))
        networks = {
            "tokenizer": coder,
            "discriminator": judge,
            "transformer": transformer,
            "classifier": classifier,
        }
        return Costs(
            count_flops(lambda: coder.encode(image)),
            count_flops(lambda: coder.decode(codes)),
            count_flops(lambda: judge(image)),
            count_flops(lambda: classifier(image)),
            whole - config.num_tokens * head,
            head,
            {name: sum(p.numel() for p in of.parameters()) for name, of in networks.items()},
            classifier.head.in_features + classifier.head.out_features,
        )


def count_flops(run: Callable[[], object]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


class Plan:
    """The work and outputs of a run with given params.

    Args:
        size: of the data set.
        gpu: a GPU whose rate counts; None for an A100, or the CPU where the params use no GPU.
        tflops: the rate that a device achieves, in 10¹² FLOP/s, instead of `gpu`.

    Raises:
        UserError: `gpu` is unknown, or `tflops` is not a rate.
    """

    def __init__(
        self,
        params: Params,
        size: DataSize,
        gpu: str | None = None,
        tflops: float | None = None,
    ):
        self.params, self.size, self.costs = params, size, costs(params, size.classes)
        self.rate, self.device = _device(params, gpu, tflops)

    def flops(self) -> dict[str, float]:
        """FLOPs of each stage."""
        p, c, seeds = self.params, self.costs, len(self.params.evaluation.seeds)
        guided = 2 if p.decoding.guidance_scale else 1
        one_pass = guided * (c.body + p.num_tokens * c.head)
        drawn = p.decoding.iterations * one_pass + c.decode
        main = self._extractor(p.evaluation.extractor) + c.classifier
        both = main + self._extractor(p.evaluation.second_extractor)
        trials, sweep, heated = trial_count(p), p.sweep, p.temperature
        cells = trials * len(sweep.iterations) + len(sweep.crossed) ** 2 * len(sweep.seeds)
        passes = trials * sum(sweep.iterations)
        edited = EDITS * seeds * min(p.editing.images, self.size.val)
        hidden = p.reconstruction
        rebuilt = seeds * min(hidden.images, self.size.val) * hidden.draws * len(hidden.mask_ratios)
        views = self.size.train * p.tokens.crops_per_image + self.size.val
        steps = p.sweep.steps * p.training.batch_size
        schedules = sum(self._masked(schedule) for schedule in sweep.schedules) * len(sweep.seeds)
        trained = 3 * steps * (trials * c.body + schedules * c.head)
        return {
            "train_classifier": 0
            if p.classifier.pretrained
            else p.classifier.steps * p.classifier.batch_size * 3 * c.classifier,
            "train_tokenizer": self._tokenizer(),
            "cache_tokens": views * c.encode,
            **{f"train_{network}": self._transformer(network) for network in NETWORKS},
            "sweep": (0 if p.transformer.pretrained else trained)
            + sweep.samples * (passes * one_pass + cells * (c.decode + main)),
            "evaluate": self._samples("transformer") * drawn
            + self._samples("autoregressive") * (one_pass // guided + c.decode)
            + sum(self._samples(network) for network in NETWORKS) * both
            + (self.size.train + 2 * self.size.val) * both,
            "cas": classifier_count(p) * p.cas.steps * p.classifier.batch_size * 3 * c.classifier,
            "temperature": len(heated.values) * seeds * heated.samples * (drawn + main),
            "edit": edited * (p.editing.iterations * one_pass + c.encode + c.decode + main),
            "reconstruct": rebuilt * (hidden.iterations * one_pass + c.decode),
        }

    def _tokenizer(self) -> float:
        """Both networks. For the tokenizer's loss an image also goes forward through the network of
        the perceptual loss twice and back once, and so through the discriminator, once forward."""
        p, c = self.params.tokenizer, self.costs
        if p.pretrained:
            return 0
        perceptual = (
            c.classifier
            if p.perceptual == "classifier"
            else LPIPS[p.perceptual.removeprefix("lpips_")] * self.params.data.image_size**2
        )
        judged = max(p.steps - p.adversarial_start, 0) if p.adversarial_weight else 0
        judging = (2 + 6 + 6 / p.r1_every) * c.discriminator
        if p.adaptive_weight:  # another way back of both losses
            judging += c.discriminator + perceptual
        own = 3 * (c.encode + c.decode + perceptual)
        return p.batch_size * (p.steps * own + judged * judging)

    def _transformer(self, network: str) -> float:
        p, c = self.params, self.costs
        baseline = network == "autoregressive"
        if p.transformer.pretrained and not baseline:
            return 0
        steps = p.autoregressive.steps if baseline else p.training.steps
        rows = p.num_tokens if baseline else self._masked(p.training.mask_schedule)
        count = len(replicates(p, "autoregressive" if baseline else "transformer"))
        return count * steps * p.training.batch_size * 3 * (c.body + rows * c.head)

    def _masked(self, schedule: str) -> float:
        """Tokens of an image, on average, at which a training step computes the head."""
        import torch

        from pipeline.schedules import mask_ratio

        p, r = self.params, (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
        if p.training.loss_on == "all":
            return p.num_tokens
        ratio = mask_ratio(schedule, r, p.num_tokens).clamp(min=p.training.min_masking_rate)
        return torch.ceil(ratio * p.num_tokens).mean().item()

    def _extractor(self, name: str) -> float:
        return {"inception": INCEPTION, "vgg": VGG}.get(name, self.costs.classifier)

    def _samples(self, network: Any) -> int:
        """Samples of all replicates; CAS, too, is trained on those of the main ones."""
        measured, largest = self.params.evaluation.samples, self.params.cas.samples
        of = replicates(self.params, network)
        return sum(max(measured, largest) if r.main else measured for r in of)

    def disk(self) -> dict[str, tuple[float, float]]:
        """Bytes that each stage writes: outputs, which DVC keeps a second time in its cache, and
        what stays under `ray.storage_path`."""
        p, e, count = self.params, self.params.evaluation, self.costs.parameters
        pixels = p.data.channels * p.data.image_size**2
        grids = self.size.train * p.tokens.crops_per_image + self.size.val
        published = len(NETWORKS) * len(e.seeds) * max(e.samples, p.cas.samples)
        numbers = sum(
            SEEN.get(name, self.costs.features) for name in {e.extractor, e.second_extractor}
        )
        kept = self.size.train + self.size.val + published
        trials = 0 if p.transformer.pretrained else trial_count(p)
        transformers = {
            f"train_{network}": self._models("transformer", len(replicates(p, network)))
            for network in NETWORKS
        }
        if p.transformer.pretrained:
            transformers["train_transformer"] = (4 * count["transformer"], 0)
        coder, live = self._models("tokenizer", 1)
        _, cas = self._models("classifier", classifier_count(p), averaged=False)
        samples = published * PNG * pixels
        return {
            "prepare": (self.size.shard_bytes, 0),
            "train_classifier": self._models("classifier", 1, averaged=False),
            "train_tokenizer": (coder, 0 if p.tokenizer.pretrained else live),
            "cache_tokens": (2 * grids * p.num_tokens, 0),
            **transformers,
            "sweep": (0, sum(self._models("transformer", trials))),
            "evaluate": (samples, (samples if e.keep_samples else 0) + 4 * kept * numbers),
            "cas": (0, cas),
        }

    def _models(self, name: str, count: int, averaged: bool = True) -> tuple[float, float]:
        """Published weights in float32, and live checkpoints: weights, Adam's two moments, and the
        averaged weights."""
        weights = 4 * self.costs.parameters[name] * count
        return weights, limits.CHECKPOINTS * (3 + averaged) * weights

    def disk_bytes(self) -> float:
        return sum(2 * outputs + live for outputs, live in self.disk().values())

    def seconds(self, flops: float) -> float:
        return flops / self.rate / self.params.ray.num_workers

    def values(self) -> dict[str, Any]:
        """The plan as numbers: FLOPs, seconds, bytes, and the rate in FLOP/s."""
        flops = self.flops()
        return {
            "preset": self.params.preset,
            "data": asdict(self.size),
            "parameters": self.costs.parameters,
            "device": {
                "name": self.device,
                "rate": self.rate,
                "count": self.params.ray.num_workers,
            },
            "stages": {
                name: {"flops": of, "seconds": self.seconds(of)} for name, of in flops.items()
            },
            "disk": {
                name: {"outputs": outputs, "live": live}
                for name, (outputs, live) in self.disk().items()
            },
            "in_all": {
                "flops": sum(flops.values()),
                "seconds": self.seconds(sum(flops.values())),
                "disk_bytes": self.disk_bytes(),
            },
        }

    def text(self) -> str:
        from tabulate import tabulate

        p, flops, disk = self.params, self.flops(), self.disk()
        count, total = p.ray.num_workers, sum(flops.values())
        size = self.size
        lines = [
            f"About {_duration(self.seconds(total))} on {count} × {self.device}, and "
            f"{_scaled(self.disk_bytes())}B of disk (an estimate; nothing was trained).",
            f"Rate: {self.rate / 1e12:g} TFLOP/s a device. Measure yours with `make bench`, and "
            f"give it with --tflops.",
            "",
            f"preset {p.preset}; {p.data.source}: {size.train:,} + {size.val:,} images of "
            f"{size.classes:,} classes ({size.origin}); {p.grid}×{p.grid} tokens",
            "parameters: " + ", ".join(f"{n} {k:,}" for n, k in self.costs.parameters.items()),
            "",
        ]
        rows = []
        for name in dict.fromkeys((*disk, *flops)):
            written = [f"{_scaled(of)}B" if of else "–" for of in disk.get(name, (0, 0))]
            computed = flops.get(name, 0)
            time = _duration(self.seconds(computed)) if computed else "–"
            rows.append([name, f"{_scaled(computed)}FLOP" if computed else "–", time, *written])
        rows.append(["in all", f"{_scaled(total)}FLOP", _duration(self.seconds(total)), "", ""])
        headers = ["stage", "computes", "time", "outputs", "live copies"]
        table = tabulate(rows, headers, tablefmt="simple", colalign=("left", *["right"] * 4))
        return "\n".join([*lines, table])


def _device(params: Params, gpu: str | None, tflops: float | None) -> tuple[float, str]:
    """FLOP/s of one worker, and the name of its device."""
    cores = params.ray.cpus_per_worker
    if tflops is not None:
        if not limits.SMALLEST <= tflops <= limits.LARGEST:
            raise UserError("--tflops", f"{tflops:g} is not a rate", "give a rate such as 150")
        return 1e12 * tflops, gpu or ("GPU" if params.ray.use_gpu else "CPU worker")
    if gpu or params.ray.use_gpu:
        name = gpu or "A100"
        if name not in PEAKS:
            raise UserError("--gpu", f"there is no rate for '{name}'", f"use {', '.join(PEAKS)}")
        return SHARE * PEAKS[name], f"{name} ({SHARE:.0%} of its bfloat16 peak)"
    return CORE * cores, f"CPU worker of {cores} core{'s' if cores > 1 else ''}"


def _scaled(value: float) -> str:
    """A number with three digits and a decimal prefix."""
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
