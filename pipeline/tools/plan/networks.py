"""The networks of a run, with the cost of each."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.config.params import Params
from pipeline.config.replicates import replicates
from pipeline.tokenizer import Tokenizer
from pipeline.tools.plan import costs
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import tokenizer_config, transformer_config


@dataclass(frozen=True)
class DataSize:
    """The size of a data set."""

    train: int  # images
    val: int
    classes: int
    origin: str  # where the numbers are from
    shard_bytes: int | None = None  # of the prepared images; None before they are prepared
    picture_pixels: int | None = None  # of the source's, on average; None: as the run's images


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
    adversarial_flops: int = 0  # of all FLOPs, of the tokenizer's those through the discriminator


def plan_networks(params: Params, data: DataSize) -> list[Network]:
    """Every network of the run; the discriminator only where it is trained."""
    return [
        *(network for network in _tokenizer(params, data) if network.published or network.steps),
        _transformer(params, data),
        _autoregressive(params, data),
        _classifier(params, data),
    ]


def plan_network(name: str, params: Params, data: DataSize) -> Network:
    """MaskGIT's transformer or the classifier, which the sweep and CAS train with workers of their
    own."""
    return {"transformer": _transformer, "classifier": _classifier}[name](params, data)


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
    # What is logged of the discriminator's pull is a whole step's, in float32.
    in_float32 = bool(judged) and not p.adaptive_weight
    tokenizer = _network(
        "tokenizer",
        model,
        lambda: costs.tokenizer_forward(params, data.classes, model, batch),
        steps=steps,
        bf16=p.bf16 and not in_float32,
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
            adversarial_flops=judged * step.generator,
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
    model.eval()  # a worker's batch norms see the images of all, of which it may have one
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
