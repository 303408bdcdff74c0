"""The networks and stages of a run, with the cost of each."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.config.params import Params
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


@dataclass(frozen=True)
class Network:
    """A network of the run, and its training."""

    name: str
    parameters: int
    step_flops: int  # of a training step, its whole batch
    steps: int  # of its training; 0 where released weights take its place
    total_flops: int
    published: int | None  # bytes of model.safetensors; None: it is not published
    checkpoint: int | None  # bytes of the live one; None: it is a part of the tokenizer's
    memory: int  # bytes that one worker needs in training, approximately


@dataclass(frozen=True)
class Stage:
    """The work of a stage."""

    name: str
    flops: int
    devices: int  # how many share the work


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
    workers = params.ray.num_workers
    encode, decode = costs.tokenizer_coding(tokenizer_config(params), params.grid, batch=1)
    one_pass, autoregressive = _sampling(params, data)

    def images(count: int, iterations: int) -> int:
        """FLOPs of MaskGIT's samples."""
        return count * (iterations * one_pass + decode)

    views = data.train * params.tokens.crops_per_image + data.val
    tokenizer = sum(n.total_flops for n in networks if n.name in ("tokenizer", "discriminator"))
    sampled, iterations = (
        max(params.evaluation.samples, params.cas.samples),
        params.decoding.iterations,
    )
    classifiers = CAS_SETS * len(params.cas.seeds)
    heated = len(params.temperature.values) * len(params.temperature.seeds)
    edited = len(TASKS) * len(params.editing.seeds) * min(params.editing.images, data.val)
    hidden = params.reconstruction
    rebuilt = min(hidden.images, data.val) * hidden.draws * len(hidden.mask_ratios)
    return [
        Stage("train_classifier", by_name["classifier"].total_flops, 1),
        Stage("train_tokenizer", tokenizer, 1),
        Stage("cache_tokens", views * encode, 1),
        Stage("train_transformer", by_name["transformer"].total_flops, workers),
        Stage("train_autoregressive", by_name["autoregressive"].total_flops, workers),
        Stage("sweep", _sweep(params, data, one_pass, decode), workers),
        Stage("evaluate", images(sampled, iterations) + sampled * (autoregressive + decode), 1),
        Stage(
            "cas",
            classifiers * params.cas.steps * by_name["classifier"].step_flops,
            min(workers, classifiers),
        ),
        Stage("temperature", images(heated * params.temperature.samples, iterations), 1),
        Stage("edit", images(edited, params.editing.iterations) + edited * encode, 1),
        Stage("reconstruct", images(rebuilt, hidden.iterations), 1),
    ]


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
    if params.transformer.pretrained:
        return trials * cells
    batch = params.training.batch_size // sweep.workers_per_trial
    model = costs.on_meta(lambda: MaskGitTransformer(transformer_config(params, data.classes)))
    # A step is linear in the rows of its head: the mean over schedules stands for all of them.
    rows = [costs.head_rows(params, schedule, batch) for schedule in sweep.schedules]
    step = costs.training_flops(
        lambda: costs.transformer_forward(model, batch, round(sum(rows) / len(rows)))
    )
    return trials * (sweep.steps * sweep.workers_per_trial * step + cells)


def _network(
    name: str,
    model: nn.Module,
    forward: Callable[[], Tensor],
    *,
    steps: int,
    bf16: bool,
    workers: int = 1,
    averaged: bool = True,
) -> Network:
    """The plan of one network.

    Args:
        forward: the forward pass of one worker's training step.
        averaged: whether an average of the weights is kept, and published.
    """
    step = workers * costs.training_flops(forward)
    return Network(
        name=name,
        parameters=costs.parameter_count(model),
        step_flops=step,
        steps=steps,
        total_flops=steps * step,
        published=costs.published_bytes(model),
        checkpoint=costs.checkpoint_bytes(model, averaged),
        memory=costs.training_memory(model, forward, bf16, averaged),
    )


def _tokenizer(params: Params, data: DataSize) -> list[Network]:
    p, step = params.tokenizer, costs.adversarial_step(params)
    steps = 0 if p.pretrained else p.steps
    judged = max(steps - p.adversarial_start, 0) if p.adversarial_weight else 0
    judging = step.discriminator + step.r1 // p.r1_every
    images = costs.image_batch(params, p.batch_size)
    model = costs.on_meta(lambda: Tokenizer(tokenizer_config(params)))
    judge = costs.on_meta(lambda: costs.discriminator_of(params))
    tokenizer = _network(
        "tokenizer",
        model,
        lambda: costs.tokenizer_forward(params, data.classes, model),
        steps=steps,
        bf16=p.bf16,
    )
    discriminator = _network(
        "discriminator", judge, lambda: judge(images), steps=judged, bf16=False, averaged=False
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
    workers = params.ray.num_workers
    batch = params.training.batch_size // workers
    rows = costs.head_rows(params, params.training.mask_schedule, batch)
    return _network(
        "transformer",
        model,
        lambda: costs.transformer_forward(model, batch, rows),
        steps=0 if params.transformer.pretrained else params.training.steps,
        bf16=params.training.bf16,
        workers=workers,
    )


def _autoregressive(params: Params, data: DataSize) -> Network:
    config = transformer_config(params, data.classes)
    model = costs.on_meta(lambda: AutoregressiveTransformer(config))
    workers = params.ray.num_workers
    batch = params.training.batch_size // workers
    return _network(
        "autoregressive",
        model,
        lambda: costs.autoregressive_forward(model, batch),
        steps=params.autoregressive.steps,
        bf16=params.training.bf16,
        workers=workers,
    )


def _classifier(params: Params, data: DataSize) -> Network:
    p = params.classifier
    model = costs.on_meta(lambda: costs.classifier_of(params, data.classes))
    images = costs.image_batch(params, p.batch_size)
    return _network(
        "classifier", model, lambda: model(images), steps=p.steps, bf16=p.bf16, averaged=False
    )
