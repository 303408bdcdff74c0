"""The stages of a run, and the work of each: what networks compute, and what processors do for
them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.config.params import Params
from pipeline.config.replicates import NETWORKS, NetworkName, replicates
from pipeline.experiments.ablation.grid import trial_workers
from pipeline.experiments.edit import TASKS
from pipeline.tools.plan import costs
from pipeline.tools.plan.measured import extractor_flops, judges, measured_sets
from pipeline.tools.plan.networks import CAS_SETS, DataSize, Network
from pipeline.training import classifier as classifying
from pipeline.training import tokenizer as rebuilding
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import tokenizer_config, transformer_config

# Core seconds of decoding and cropping a picture: of one, and of each pixel of the source. That is
# 446 a second of ImageNet's and 15,000 of MNIST's, as measured on an AMD EPYC.
DECODE, DECODE_PIXEL = 55e-6, 12e-9
# Of each pixel of samples, which are colour PNGs: of decoding and cropping, and of encoding, once.
PNG_PIXEL, ENCODE_PIXEL = 35e-9, 80e-9
# Of RandAugment, in the loaders of a training or its one thread: of a picture, which every worker
# draws for all of the batch, and of each pixel, which are its own pictures'.
AUGMENT, AUGMENT_PIXEL = 57e-6, 4e-9


@dataclass(frozen=True)
class Part:
    """A part of a stage's work, which its devices share."""

    what: str  # training, coding, sampling, encoding, validation or features
    flops: int
    devices: float  # on average
    pictures: float = 0.0  # core seconds of decoding and cropping, or of encoding
    augmenting: float = 0.0  # core seconds of RandAugment
    loaders: int = 0  # processes of each device that do both, where it has any

    def seconds(self, rate: float, cores: int) -> float:
        """How long it takes. In trainings the next batches are prepared meanwhile, and the slower
        of networks and processors counts; elsewhere a batch is prepared and then worked on.

        Args:
            rate: of a device, in FLOP/s.
            cores: that each has. Without loaders all of them decode and crop, and one augments.
        """
        if self.loaders:
            prepared = (self.pictures + self.augmenting) / self.loaders
        else:
            prepared = max(self.pictures / cores, self.augmenting)
        work = self.flops / rate
        time = max(work, prepared) if self.what == "training" else work + prepared
        return time / self.devices


@dataclass(frozen=True)
class Stage:
    """The work of a stage, part after part."""

    name: str
    parts: tuple[Part, ...]

    @property
    def flops(self) -> int:
        return sum(part.flops for part in self.parts)

    @property
    def devices(self) -> float:
        """How many share the work, on average."""
        time = sum(part.flops / part.devices for part in self.parts)
        return self.flops / time if time else max(part.devices for part in self.parts)

    @property
    def core_seconds(self) -> float:
        return sum(part.pictures + part.augmenting for part in self.parts)

    def flops_of(self, what: str) -> int:
        return sum(part.flops for part in self.parts if part.what == what)

    def seconds(self, rate: float, cores: int) -> float:
        return sum(part.seconds(rate, cores) for part in self.parts)


def plan_stages(params: Params, data: DataSize, networks: list[Network]) -> list[Stage]:
    """Every stage of the DAG whose networks compute much."""
    planner = _Planner(params, data, networks)
    parts = {
        "train_classifier": planner.train_classifier(),
        "train_tokenizer": planner.train_tokenizer(),
        "cache_tokens": planner.cache_tokens(),
        "train_transformer": planner.train_transformer("transformer"),
        "train_autoregressive": planner.train_transformer("autoregressive"),
        "sweep": planner.sweep(),
        "evaluate": planner.evaluate(),
        "cas": planner.cas(),
        "temperature": planner.temperature(),
        "edit": planner.edit(),
        "reject": [],
        "reconstruct": planner.reconstruct(),
    }
    return [Stage(name, (*own, planner.features(name))) for name, own in parts.items()]


def at_work(jobs: int, each: int, devices: int) -> float:
    """Devices that are at work, on average, while jobs of so many workers each run beside one
    another."""
    at_once = max(1, devices // each)
    return jobs * each / math.ceil(jobs / at_once)


class _Planner:
    """The parts of each stage. FLOPs are of one image, unless a name says otherwise."""

    def __init__(self, params: Params, data: DataSize, networks: list[Network]):
        self.params, self.data = params, data
        self.network = {network.name: network for network in networks}
        self.workers, self.seeds = params.ray.num_workers, len(params.evaluation.seeds)
        self.loaders = params.ray.loaders_per_worker
        self.encode, self.decode = costs.tokenizer_coding(tokenizer_config(params), params.grid, 1)
        config = transformer_config(params, data.classes)
        guided = 2 if params.decoding.guidance_scale else 1
        self.one_pass = guided * costs.decoding_pass(config, 1)
        self.autoregressive = costs.autoregressive_sampling(config, 1)
        self.extractors = extractor_flops(params, data)
        self.judge = self.extractors["classifier"]
        self.look = {name: self._likelihood(name) for name in NETWORKS}
        self.picture = DECODE + DECODE_PIXEL * (data.pixels or params.data.image_size**2)

    def training(self, names: Iterable[str], devices: float, pictures: int = 0) -> Part:
        """The training of networks, with pictures that are decoded and cropped."""
        flops = sum(self.network[name].total_flops for name in names if name in self.network)
        return Part("training", flops, devices, pictures * self.picture, loaders=self.loaders)

    def samples(self, count: int, iterations: int) -> int:
        """FLOPs of so many of MaskGIT's samples."""
        return count * (iterations * self.one_pass + self.decode)

    def features(self, stage: str) -> Part:
        """Of the sets that the stage measures."""
        sets = [each for each in measured_sets(self.params, self.data) if each.stage == stage]
        flops = sum(s.images * self.extractors[name] for s in sets for name in s.extractors)
        pictures = sum(s.images for s in sets if s.held)
        return Part("features", flops, self.workers, pictures * self.picture)

    def train_classifier(self) -> list[Part]:
        p, val = self.params.classifier, self.data.val
        looked_at = _looks(p.steps, p.checkpoint_every) * min(classifying.LOGGED, val)
        return [
            self.training(["classifier"], self.workers, p.steps * p.batch_size),
            Part("validation", looked_at * self.judge, self.workers),
            Part("validation", val * self.judge, 1, val * self.picture),
        ]

    def train_tokenizer(self) -> list[Part]:
        p, val, both = self.params.tokenizer, self.data.val, self.encode + self.decode
        last = Part("validation", val * both, 1, val * self.picture)
        if p.pretrained:
            return [last]
        looked_at = _looks(p.steps, p.checkpoint_every) * min(rebuilding.LOGGED, val)
        names = ("tokenizer", "discriminator")
        return [
            self.training(names, self.workers, p.steps * p.batch_size),
            Part("validation", looked_at * both, self.workers),
            last,
        ]

    def cache_tokens(self) -> list[Part]:
        views = self.data.train * self.params.tokens.crops_per_image + self.data.val
        return [Part("coding", views * self.encode, self.workers, views * self.picture)]

    def _likelihood(self, network: NetworkName) -> int:
        """FLOPs of a look at all validation tokens."""
        config = transformer_config(self.params, self.data.classes)
        if network == "autoregressive":
            causal = costs.on_meta(lambda: AutoregressiveTransformer(config))
            return self.data.val * costs.count_flops(
                lambda: costs.autoregressive_forward(causal, 1)
            )
        model = costs.on_meta(lambda: MaskGitTransformer(config))
        batch = 100
        rows = round(costs.masked_rows(self.params, self.params.training.mask_schedule, batch))
        look = costs.count_flops(lambda: costs.transformer_forward(model, batch, rows))
        return self.data.val * look // batch

    def train_transformer(self, network: NetworkName) -> list[Part]:
        """Of either network; released weights are looked at once."""
        found, look = self.network[network], self.look[network]
        if not found.steps:
            return [Part("validation", look, 1)]
        looks = found.trainings * _looks(found.steps, self.params.training.checkpoint_every)
        return [
            self.training([network], self.workers),
            Part("validation", looks * look, self.workers),
        ]

    def sweep(self) -> list[Part]:
        """Of a trial's workers one measures, and the others decode for it."""
        sweep, params = self.params.sweep, self.params
        each = trial_workers(params).count
        trials = len(sweep.schedules) * len(sweep.seeds)
        busy, look = at_work(trials, each, self.workers), self.look["transformer"]
        # A trial's own schedule among the crossed ones is counted, though it may be a cell already.
        crossed = len(sweep.crossed) ** 2 * len(sweep.seeds)
        cells = trials * len(sweep.iterations) + crossed
        passes = trials * sum(sweep.iterations) + crossed * params.decoding.iterations
        drawn = sweep.samples * (passes * self.one_pass + cells * self.decode)
        scored = cells * sweep.samples * sum(self.extractors[name] for name in judges(params))
        parts = [
            Part("sampling", drawn, busy * max(1, each - 1) / each),
            Part("features", scored, busy / each),
            Part("validation", trials * look, busy / each),
        ]
        if params.transformer.pretrained:
            return parts
        looks = trials * _looks(sweep.steps, params.training.checkpoint_every)
        trained = trials * sweep.steps * each * self._trial_step()
        return [Part("training", trained, busy), Part("validation", looks * look, busy), *parts]

    def _trial_step(self) -> int:
        """FLOPs of one worker's share of a trial's training step."""
        sweep, params = self.params.sweep, self.params
        batch = params.training.batch_size // sweep.workers_per_trial
        config = transformer_config(params, self.data.classes)
        model = costs.on_meta(lambda: MaskGitTransformer(config))
        # A step is linear in the rows of its head: the mean over schedules stands for all of them.
        rows = [costs.head_rows(params, schedule, batch) for schedule in sweep.schedules]
        mean = round(sum(rows) / len(rows))
        return costs.training_flops(lambda: costs.transformer_forward(model, batch, mean))

    def evaluate(self) -> list[Part]:
        p, val = self.params, self.data.val
        ours, theirs = (_sampled(p, network) for network in NETWORKS)
        drawn = self.samples(ours, p.decoding.iterations)
        drawn += theirs * (self.autoregressive + self.decode)
        looks = sum(self.look[name] * len(replicates(p, name)) for name in NETWORKS)
        published = len(NETWORKS) * self.seeds * max(p.evaluation.samples, p.cas.samples)
        encoding = published * ENCODE_PIXEL * p.data.image_size**2
        return [
            Part("sampling", drawn, self.workers),
            Part("encoding", 0, self.workers, encoding),
            Part("coding", val * (self.encode + self.decode), self.workers, val * self.picture),
            Part("validation", looks, 1),
        ]

    def cas(self) -> list[Part]:
        p, own, val = self.params.classifier, self.params.cas, self.data.val
        count, each = CAS_SETS * self.seeds, own.workers_per_classifier
        busy, step = at_work(count, each, self.workers), self.network["classifier"].step_flops
        pixels = self.params.data.image_size**2
        # A third is trained on the data set's pictures, and all others on samples.
        picture = (self.picture + 2 * (DECODE + PNG_PIXEL * pixels)) / 3
        half = count // 2 * own.steps  # without RandAugment, and with it
        looked_at = _looks(own.steps, p.checkpoint_every) * min(classifying.LOGGED, val)
        augmenting = half * p.batch_size * (each * AUGMENT + pixels * AUGMENT_PIXEL)
        cropping = half * p.batch_size * picture
        return [
            Part("training", half * step, busy, cropping, loaders=self.loaders),
            Part("training", half * step, busy, cropping, augmenting, self.loaders),
            Part("validation", count * looked_at * self.judge, busy),
            Part("validation", count * val * self.judge, busy / each, count * val * self.picture),
        ]

    def temperature(self) -> list[Part]:
        heated = self.params.temperature
        count = len(heated.values) * self.seeds * heated.samples
        return [
            Part("sampling", self.samples(count, self.params.decoding.iterations), self.workers)
        ]

    def edit(self) -> list[Part]:
        p = self.params.editing
        edited = len(TASKS) * self.seeds * min(p.images, self.data.val)
        flops = self.samples(edited, p.iterations) + edited * self.encode
        return [Part("sampling", flops, self.workers, edited * self.picture)]

    def reconstruct(self) -> list[Part]:
        p = self.params.reconstruction
        rebuilt = self.seeds * min(p.images, self.data.val) * p.draws * len(p.mask_ratios)
        return [Part("sampling", self.samples(rebuilt, p.iterations), self.workers)]


def _looks(steps: int, every: int) -> int:
    """How often a training looks at validation images."""
    return -(-steps // every)


def _sampled(params: Params, network: NetworkName) -> int:
    """Samples of all replicates of a network; CAS, too, is trained on those of the main ones."""
    measured = params.evaluation.samples
    of = replicates(params, network)
    return sum(max(measured, params.cas.samples) if r.main else measured for r in of)
