"""The stages of a run, and the work of each: what networks compute, and what processors do for
them."""

import math
from dataclasses import replace
from typing import Any

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.config.params import Params
from pipeline.config.replicates import NETWORKS, NetworkName, replicates
from pipeline.config.trainings import (
    classifier_count,
    trial_count,
    workers_per_classifier,
    workers_per_trial,
)
from pipeline.experiments.ablation.grid import trial_workers
from pipeline.experiments.edit import TASKS
from pipeline.tools.plan import costs
from pipeline.tools.plan.measured import extractor_flops, judges, measured_sets
from pipeline.tools.plan.networks import DataSize, Network
from pipeline.tools.plan.work import Part, Stage
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
        self.picture = DECODE + DECODE_PIXEL * (data.picture_pixels or params.data.image_size**2)
        self.sample = DECODE + PNG_PIXEL * params.data.image_size**2

    def training(self, bf16: bool, flops: int, devices: float, **others: Any) -> Part:
        """A training in bfloat16, or in float32."""
        return Part("training", flops, devices, float32=0 if bf16 else flops, **others)

    def of_pictures(self, bf16: bool, name: str, images: int) -> Part:
        """The training of a network on so many pictures, which are decoded and cropped."""
        return self.training(
            bf16,
            self.network[name].total_flops if name in self.network else 0,
            self.workers,
            picture_core_seconds=images * self.picture,
            loaders=self.loaders,
        )

    def validation(self, flops: int, devices: float, pictures: float = 0.0) -> Part:
        """Looks at validation images or tokens, which are in float32."""
        return Part("validation", flops, devices, pictures, float32=flops)

    def sampling(
        self, count: int, iterations: int, devices: float | None = None, encoded: int = 0
    ) -> Part:
        """So many of MaskGIT's samples, and the pictures that edits begin with. Tokens are decoded
        and encoded in float32."""
        drawn, coded = count * iterations * self.one_pass, count * self.decode
        coded += encoded * self.encode
        return Part(
            "sampling",
            drawn + coded,
            devices or self.workers,
            encoded * self.picture,
            float32=coded + (0 if self.params.decoding.bf16 else drawn),
        )

    def features(self, stage: str) -> Part:
        """Of the sets that the stage measures. What is kept is read for each extractor."""
        sets = [each for each in measured_sets(self.params, self.data) if each.stage == stage]
        flops = sum(s.images * self.extractors[name] for s in sets for name in s.extractors)
        read = {"pictures": self.picture, "samples": self.sample, "": 0.0}
        pictures = sum(s.images * len(s.extractors) * read[s.kept] for s in sets)
        return self._looked(flops, self.workers, pictures)

    def _looked(self, flops: int, devices: float, pictures: float = 0.0) -> Part:
        """Features, in bfloat16 or float32."""
        slow = 0 if self.params.evaluation.bf16 else flops
        return Part("features", flops, devices, pictures, float32=slow)

    def train_classifier(self) -> list[Part]:
        p, val = self.params.classifier, self.data.val
        looked_at = _looks(p.steps, p.checkpoint_every) * min(classifying.LOGGED, val)
        return [
            self.of_pictures(p.bf16, "classifier", p.steps * p.batch_size),
            self.validation(looked_at * self.judge, self.workers),
            self.validation(val * self.judge, self.workers, val * self.picture),
        ]

    def train_tokenizer(self) -> list[Part]:
        p, val, both = self.params.tokenizer, self.data.val, self.encode + self.decode
        last = self.validation(val * both, self.workers, val * self.picture)
        if p.pretrained:
            return [last]
        looked_at = _looks(p.steps, p.checkpoint_every) * min(rebuilding.LOGGED, val)
        return [
            self._tokenizer_steps(),
            self.validation(looked_at * both, self.workers),
            last,
        ]

    def _tokenizer_steps(self) -> Part:
        """Both networks. The discriminator, and what of the tokenizer's losses goes through it, is
        in float32 whatever the tokenizer is, or in TF32."""
        p = self.params.tokenizer
        own = self.of_pictures(True, "tokenizer", p.steps * p.batch_size)
        other = self.of_pictures(True, "discriminator", 0)
        through = self.network["tokenizer"].adversarial_flops
        slow = (through if p.bf16 else own.flops) + other.flops
        exact, rounded = (0, slow) if p.tf32 else (slow, 0)
        return replace(own, flops=own.flops + other.flops, float32=exact, tf32=rounded)

    def cache_tokens(self) -> list[Part]:
        views = self.data.train * self.params.tokens.crops_per_image + self.data.val
        flops = views * self.encode
        slow = 0 if self.params.tokens.bf16 else flops
        return [Part("coding", flops, self.workers, views * self.picture, float32=slow)]

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
            return [self.validation(look, self.workers)]
        looks = found.trainings * _looks(found.steps, self.params.training.checkpoint_every)
        return [
            self.training(self.params.training.bf16, found.total_flops, self.workers),
            self.validation(looks * look, self.workers),
        ]

    def sweep(self) -> list[Part]:
        """Of a trial's workers one measures, and the others decode and look for it."""
        sweep, params = self.params.sweep, self.params
        each = trial_workers(params).count
        trials = trial_count(params)
        busy, look = at_work(trials, each, self.workers), self.look["transformer"]
        # A trial's own schedule among the crossed ones is counted, though it may be a cell already.
        crossed = len(sweep.crossed) ** 2 * len(sweep.seeds)
        cells = trials * len(sweep.iterations) + crossed
        passes = trials * sum(sweep.iterations) + crossed * params.decoding.iterations
        scored = cells * sweep.samples * sum(self.extractors[name] for name in judges(params))
        looking = busy * max(1, each - 1) / each
        drawn = sweep.samples * passes * self.one_pass
        coded = sweep.samples * cells * self.decode
        slow = coded + (0 if params.decoding.bf16 else drawn)
        parts = [
            Part("sampling", drawn + coded, looking, float32=slow),
            self._looked(scored, looking),
            self.validation(trials * look, busy / each),
        ]
        if params.transformer.pretrained:
            return parts
        looks = trials * _looks(sweep.steps, params.training.checkpoint_every)
        trained = trials * sweep.steps * each * self._trial_step()
        training = self.training(params.training.bf16, trained, busy)
        return [training, self.validation(looks * look, busy), *parts]

    def _trial_step(self) -> int:
        """FLOPs of one worker's share of a trial's training step."""
        sweep, params = self.params.sweep, self.params
        batch = params.training.batch_size // workers_per_trial(params)
        config = transformer_config(params, self.data.classes)
        model = costs.on_meta(lambda: MaskGitTransformer(config))
        # A step is linear in the rows of its head: the mean over schedules stands for all of them.
        rows = [costs.head_rows(params, schedule, batch) for schedule in sweep.schedules]
        mean = round(sum(rows) / len(rows))
        return costs.training_flops(lambda: costs.transformer_forward(model, batch, mean))

    def evaluate(self) -> list[Part]:
        p, val = self.params, self.data.val
        ours, theirs = (_sampled(p, network) for network in NETWORKS)
        baselines, coded = theirs * self.autoregressive, theirs * self.decode
        slow = coded + (0 if p.autoregressive.bf16 else baselines)
        looks = sum(self.look[name] * len(replicates(p, name)) for name in NETWORKS)
        published = len(NETWORKS) * self.seeds * max(p.evaluation.samples, p.cas.samples)
        encoding = published * ENCODE_PIXEL * p.data.image_size**2
        rebuilt = val * (self.encode + self.decode)
        return [
            self.sampling(ours, p.decoding.iterations),
            Part("sampling", baselines + coded, self.workers, float32=slow),
            Part("encoding", 0, self.workers, encoding),
            Part("coding", rebuilt, self.workers, val * self.picture, float32=rebuilt),
            self.validation(looks, self.workers),
        ]

    def cas(self) -> list[Part]:
        p, own, val = self.params.classifier, self.params.cas, self.data.val
        count, each = classifier_count(self.params), workers_per_classifier(self.params)
        busy, step = at_work(count, each, self.workers), self.network["classifier"].step_flops
        pixels = self.params.data.image_size**2
        # A third is trained on the data set's pictures, and all others on samples.
        picture = (self.picture + 2 * self.sample) / 3
        half = count // 2 * own.steps  # without RandAugment, and with it
        looked_at = _looks(own.steps, p.checkpoint_every) * min(classifying.LOGGED, val)
        augmenting = half * p.batch_size * (each * AUGMENT + pixels * AUGMENT_PIXEL)
        cropping = half * p.batch_size * picture
        read = {"picture_core_seconds": cropping, "loaders": self.loaders}
        return [
            self.training(p.bf16, half * step, busy, **read),
            self.training(p.bf16, half * step, busy, augmenting_core_seconds=augmenting, **read),
            self.validation(count * looked_at * self.judge, busy),
            self.validation(count * val * self.judge, busy / each, count * val * self.picture),
        ]

    def temperature(self) -> list[Part]:
        heated = self.params.temperature
        count = len(heated.values) * self.seeds * heated.samples
        return [self.sampling(count, self.params.decoding.iterations)]

    def edit(self) -> list[Part]:
        p = self.params.editing
        images = min(p.images, self.data.val)
        edited = len(TASKS) * self.seeds * images
        others = (1 + len(TASKS)) * images * self.picture  # originals, nearest pixels
        sampling = self.sampling(edited, p.iterations, encoded=edited)
        return [replace(sampling, picture_core_seconds=sampling.picture_core_seconds + others)]

    def reconstruct(self) -> list[Part]:
        p = self.params.reconstruction
        rebuilt = self.seeds * min(p.images, self.data.val) * p.draws * len(p.mask_ratios)
        return [self.sampling(rebuilt, p.iterations)]


def _looks(steps: int, every: int) -> int:
    """How often a training looks at validation images."""
    return -(-steps // every)


def _sampled(params: Params, network: NetworkName) -> int:
    """Samples of all replicates of a network; CAS, too, is trained on those of the main ones."""
    measured = params.evaluation.samples
    of = replicates(params, network)
    return sum(max(measured, params.cas.samples) if r.main else measured for r in of)
