"""The networks and stages of a run, with the cost of each."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.config.params import Params
from pipeline.config.replicates import NETWORKS, NetworkName, replicates
from pipeline.experiments.edit import TASKS
from pipeline.tokenizer import Tokenizer
from pipeline.tools.plan import costs
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import tokenizer_config, transformer_config

CAS_SETS = 6  # MaskGIT's and the baseline's samples and real images, augmented and not


@dataclass(frozen=True)
class DataSize:
    """The size of a data set."""

    train: int  # images
    val: int
    classes: int
    origin: str  # where the numbers are from
    shard_bytes: int | None = None  # of the prepared images; None before they are prepared


@dataclass(frozen=True)
class Network:
    """A network of the run, and its training."""

    name: str
    parameters: int
    step_flops: int  # of a training step, its whole batch
    steps: int  # of a training; 0 where released weights take its place
    trainings: int  # how many of them
    total_flops: int  # of all of them
    published: int | None  # bytes of model.safetensors; None: it is not published
    checkpoint: int | None  # bytes of the live one; None: it is a part of the tokenizer's
    memory: int  # bytes that one worker needs in training, approximately


@dataclass(frozen=True)
class Stage:
    """The work of a stage."""

    name: str
    flops: int
    devices: float  # how many share the work, on average


def plan_networks(params: Params, data: DataSize) -> list[Network]:
    """Every network of the run; the discriminator only where it is trained."""
    return [
        *(network for network in _tokenizer(params, data) if network.published or network.steps),
        _transformer(params, data),
        _autoregressive(params, data),
        _classifier(params, data),
    ]


def plan_stages(params: Params, data: DataSize, networks: list[Network]) -> list[Stage]:
    """Every stage of the DAG whose networks compute much."""
    by_name = {network.name: network for network in networks}
    encode, decode = costs.tokenizer_coding(tokenizer_config(params), params.grid, batch=1)
    one_pass, autoregressive = _sampling(params, data)

    def images(count: int, iterations: int) -> int:
        """FLOPs of MaskGIT's samples."""
        return count * (iterations * one_pass + decode)

    views = data.train * params.tokens.crops_per_image + data.val
    tokenizer = sum(n.total_flops for n in networks if n.name in ("tokenizer", "discriminator"))
    iterations, seeds = params.decoding.iterations, len(params.evaluation.seeds)
    ours, theirs = (_sampled(params, network) for network in NETWORKS)
    classifiers = CAS_SETS * seeds
    heated = len(params.temperature.values) * seeds
    edited = len(TASKS) * seeds * min(params.editing.images, data.val)
    hidden = params.reconstruction
    rebuilt = seeds * min(hidden.images, data.val) * hidden.draws * len(hidden.mask_ratios)
    flops = {
        "train_classifier": by_name["classifier"].total_flops,
        "train_tokenizer": tokenizer,
        "cache_tokens": views * encode,
        "train_transformer": by_name["transformer"].total_flops,
        "train_autoregressive": by_name["autoregressive"].total_flops,
        "sweep": _sweep(params, data, one_pass, decode),
        "evaluate": images(ours, iterations) + theirs * (autoregressive + decode),
        "cas": classifiers * params.cas.steps * by_name["classifier"].step_flops,
        "temperature": images(heated * params.temperature.samples, iterations),
        "edit": images(edited, params.editing.iterations) + edited * encode,
        "reconstruct": images(rebuilt, hidden.iterations),
    }
    devices = dict.fromkeys(flops, float(params.ray.num_workers)) | _devices(params)
    return [Stage(name, flops[name], devices[name]) for name in flops]


def _devices(params: Params) -> dict[str, float]:
    """How many devices share the work of the stages whose trainings have a number of workers of
    their own; all other work is shared by `ray.num_workers`."""
    sweep, classifiers = params.sweep, CAS_SETS * len(params.evaluation.seeds)
    trials, trained = len(sweep.schedules) * len(sweep.seeds), not params.transformer.pretrained
    workers = params.ray.num_workers
    return {
        "sweep": _busy(trials, sweep.workers_per_trial if trained else 1, workers),
        "cas": _busy(classifiers, params.cas.workers_per_classifier, workers),
    }


def _busy(jobs: int, each: int, devices: int) -> float:
    """Devices that are at work, on average, while jobs of so many workers each run beside one
    another."""
    at_once = max(1, devices // each)
    return jobs * each / math.ceil(jobs / at_once)


def _sampled(params: Params, network: NetworkName) -> int:
    """Samples of all replicates of a network; CAS, too, is trained on those of the main ones."""
    measured = params.evaluation.samples
    of = replicates(params, network)
    return sum(max(measured, params.cas.samples) if r.main else measured for r in of)


def _sampling(params: Params, data: DataSize) -> tuple[int, int]:
    """FLOPs, for one image, of an iteration of MaskGIT's decoding, and of all of the baseline's."""
    config = transformer_config(params, data.classes)
    one_pass = costs.decoding_pass(config, 1) * (2 if params.decoding.guidance_scale else 1)
    return one_pass, costs.autoregressive_sampling(config, 1)


def _sweep(params: Params, data: DataSize, one_pass: int, decode: int) -> int:
    """FLOPs of all trainings of the sweep, and of the samples of every cell."""
    sweep = params.sweep
    trials = len(sweep.schedules) * len(sweep.seeds)
    cells = sweep.samples * (sum(sweep.iterations) * one_pass + len(sweep.iterations) * decode)
    # A trial's own schedule among the crossed ones is counted, though it may be a cell already.
    crossings = len(sweep.crossed) ** 2 * len(sweep.seeds) * sweep.samples
    crossed = crossings * (params.decoding.iterations * one_pass + decode)
    if params.transformer.pretrained:
        return trials * cells + crossed
    batch = params.training.batch_size // sweep.workers_per_trial
    model = costs.on_meta(lambda: MaskGitTransformer(transformer_config(params, data.classes)))
    # A step is linear in the rows of its head: the mean over schedules stands for all of them.
    rows = [costs.head_rows(params, schedule, batch) for schedule in sweep.schedules]
    step = costs.training_flops(
        lambda: costs.transformer_forward(model, batch, round(sum(rows) / len(rows)))
    )
    return trials * (sweep.steps * sweep.workers_per_trial * step + cells) + crossed


def _network(
    name: str,
    model: nn.Module,
    forward: Callable[[], Tensor],
    *,
    steps: int,
    bf16: bool,
    trainings: int = 1,
    workers: int = 1,
    parts: int = 1,
    averaged: bool = True,
) -> Network:
    """The plan of one network.

    Args:
        forward: the forward pass of one worker's training step, or of one of its parts.
        averaged: whether an average of the weights is kept, and published.
    """
    step = workers * parts * costs.training_flops(forward)
    return Network(
        name=name,
        parameters=costs.parameter_count(model),
        step_flops=step,
        steps=steps,
        trainings=trainings,
        total_flops=trainings * steps * step,
        published=costs.published_bytes(model),
        checkpoint=costs.checkpoint_bytes(model, averaged),
        memory=costs.training_memory(model, forward, bf16, averaged),
    )


def _tokenizer(params: Params, data: DataSize) -> list[Network]:
    p, step = params.tokenizer, costs.adversarial_step(params, data.classes)
    steps = 0 if p.pretrained else p.steps
    judged = max(steps - p.adversarial_start, 0) if p.adversarial_weight else 0
    judging = step.discriminator + step.r1 // p.r1_every
    workers = params.ray.num_workers
    batch = p.batch_size // workers
    images = costs.image_batch(params, batch)
    model = costs.on_meta(lambda: Tokenizer(tokenizer_config(params)))
    judge = costs.on_meta(lambda: costs.discriminator_of(params))
    tokenizer = _network(
        "tokenizer",
        model,
        lambda: costs.tokenizer_forward(params, data.classes, model, batch),
        steps=steps,
        bf16=p.bf16,
        workers=workers,
    )
    discriminator = _network(
        "discriminator",
        judge,
        lambda: judge(images),
        steps=judged,
        bf16=False,
        workers=workers,
        averaged=False,
    )
    return [
        replace(
            tokenizer,
            step_flops=tokenizer.step_flops + step.generator,
            total_flops=tokenizer.total_flops + judged * step.generator,
            checkpoint=costs.checkpoint_bytes(model, True) + costs.checkpoint_bytes(judge, False),
        ),
        replace(
            discriminator,
            step_flops=judging,
            total_flops=judged * judging,
            published=None,
            checkpoint=None,
        ),
    ]


def _transformer(params: Params, data: DataSize) -> Network:
    model = costs.on_meta(lambda: MaskGitTransformer(transformer_config(params, data.classes)))
    workers, parts = params.ray.num_workers, params.training.accumulate
    batch = params.training.batch_size // (workers * parts)
    rows = costs.head_rows(params, params.training.mask_schedule, batch)
    return _network(
        "transformer",
        model,
        lambda: costs.transformer_forward(model, batch, rows),
        steps=0 if params.transformer.pretrained else params.training.steps,
        bf16=params.training.bf16,
        trainings=len(replicates(params, "transformer")),
        workers=workers,
        parts=parts,
    )


def _autoregressive(params: Params, data: DataSize) -> Network:
    config = transformer_config(params, data.classes)
    model = costs.on_meta(lambda: AutoregressiveTransformer(config))
    workers, parts = params.ray.num_workers, params.training.accumulate
    batch = params.training.batch_size // (workers * parts)
    return _network(
        "autoregressive",
        model,
        lambda: costs.autoregressive_forward(model, batch),
        steps=params.autoregressive.steps,
        bf16=params.training.bf16,
        trainings=len(replicates(params, "autoregressive")),
        workers=workers,
        parts=parts,
    )


def _classifier(params: Params, data: DataSize) -> Network:
    p = params.classifier
    model = costs.on_meta(lambda: costs.classifier_of(params, data.classes))
    workers = params.ray.num_workers
    images = costs.image_batch(params, p.batch_size // workers)
    return _network(
        "classifier",
        model,
        lambda: model(images),
        steps=p.steps,
        bf16=p.bf16,
        workers=workers,
        averaged=False,
    )
