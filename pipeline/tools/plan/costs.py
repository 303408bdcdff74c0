"""The cost of the networks, counted on PyTorch's meta device: no weight is allocated, nothing is
run.

FLOPs are those of matrix products and convolutions; a multiply-add counts as two. They are of whole
batches unless a docstring says otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn

from pipeline.autoregressive import AutoregressiveTransformer, KeyValueCache, next_token_logits
from pipeline.classifier import Classifier
from pipeline.config.params import Params
from pipeline.discriminator import (
    PatchDiscriminator,
    StyleGanDiscriminator,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
    make_discriminator,
    r1_penalty,
)
from pipeline.perceptual import Perceptual, classifier_distance
from pipeline.schedules import mask_ratio
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.training.transformer.task import ROWS
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights.configs import classifier_config, tokenizer_config

Network = TypeVar("Network", bound=nn.Module)
# Bytes of a tensor in a file besides its values: its name and shape, and torch.save's alignment.
SAFETENSORS_ENTRY, CHECKPOINT_ENTRY = 92, 290
# Memory of the activations that are kept for the backward pass under bfloat16 autocast, relative to
# float32: of transformers (whose residual stream stays float32), and of networks with group norms,
# which autocast computes in float32, with what they read and write (counted, of the paper's).
BF16_ACTIVATIONS, BF16_GROUP_NORM = 0.55, 0.81


def on_meta(build: Callable[[], Network]) -> Network:
    """Build a network on the meta device."""
    with torch.device("meta"):
        return build()


def count_flops(run: Callable[[], object]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def parameter_count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def published_bytes(module: nn.Module) -> int:
    """Size of the network's `model.safetensors`."""
    return sum(SAFETENSORS_ENTRY + x.nbytes for x in module.state_dict().values())


def checkpoint_bytes(module: nn.Module, averaged: bool) -> int:
    """Size of the network's part of a live checkpoint: weights, Adam's two moments and step counts,
    and the averaged weights where there are any."""
    weights = sum(CHECKPOINT_ENTRY + x.nbytes for x in module.state_dict().values())
    adam = sum(2 * (CHECKPOINT_ENTRY + p.nbytes) + CHECKPOINT_ENTRY for p in module.parameters())
    return weights * (1 + averaged) + adam


def activation_bytes(module: nn.Module, forward: Callable[[], object]) -> int:
    """Bytes that autograd keeps of a forward pass in float32, without the weights."""
    weights = {p.untyped_storage()._cdata for p in module.parameters()}
    kept = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage._cdata] = (storage.nbytes(), x)  # x: so that no address is used twice
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        result = forward()
    del result
    return sum(size for key, (size, _) in kept.items() if key not in weights)


def training_memory(
    module: nn.Module, forward: Callable[[], object], bf16: bool, averaged: bool
) -> int:
    """Approximate bytes that one worker needs: weights, gradients, Adam's two moments, averaged
    weights, autocast's copies of weights, and activations."""
    weights = sum(p.nbytes for p in module.parameters())
    share, copies = (_bf16_share(module), weights // 2) if bf16 else (1, 0)
    activations = round(share * activation_bytes(module, forward))
    return (4 + averaged) * weights + copies + activations


def _bf16_share(module: nn.Module) -> float:
    with_norms = any(isinstance(each, nn.GroupNorm) for each in module.modules())
    return BF16_GROUP_NORM if with_norms else BF16_ACTIVATIONS


def masked_rows(params: Params, schedule: str, batch: int) -> float:
    """Mean number of tokens that are masked in a batch."""
    r, tokens = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000, params.num_tokens
    ratio = mask_ratio(schedule, r, tokens).clamp(min=params.training.min_masking_rate)
    return torch.ceil(ratio * tokens).mean().item() * batch


def head_rows(params: Params, schedule: str, batch: int) -> int:
    """Mean number of positions at which one worker computes the head in a training step."""
    if params.training.loss_on == "all":
        return -(-batch * params.num_tokens // ROWS) * ROWS
    # Rounded up to a multiple of ROWS: half of that on average.
    return round(masked_rows(params, schedule, batch) + ROWS / 2)


def transformer_forward(model: MaskGitTransformer, batch: int, rows: int) -> Tensor:
    """The forward pass of MaskGIT's training step, on the meta device."""
    tokens = torch.empty(batch, model.config.num_tokens, dtype=torch.long, device="meta")
    labels, where = tokens.new_empty(batch), tokens.new_empty(rows)
    return model(tokens, tokens.bool(), labels, where)


def autoregressive_forward(model: AutoregressiveTransformer, batch: int) -> Tensor:
    """The forward pass of the baseline's training step, on the meta device."""
    tokens = torch.empty(batch, model.config.num_tokens, dtype=torch.long, device="meta")
    return model(tokens, tokens[:, 0])


def training_flops(forward: Callable[[], Tensor]) -> int:
    """FLOPs of a forward and a backward pass."""
    return count_flops(lambda: forward().sum().backward())


@cache
@torch.no_grad()
def decoding_pass(config: TransformerConfig, batch: int) -> int:
    """FLOPs of one of MaskGIT's T decoding iterations."""
    model = on_meta(lambda: MaskGitTransformer(config))
    tokens = torch.empty(batch, config.num_tokens, dtype=torch.long, device="meta")
    return count_flops(lambda: model.predict(tokens, tokens.bool(), tokens[:, 0]))


@cache
@torch.no_grad()
def next_token(config: TransformerConfig, batch: int, n: int, cache: bool) -> int:
    """FLOPs of drawing token n of the baseline, with or without a key-value cache."""
    model = on_meta(lambda: AutoregressiveTransformer(config))
    ids = torch.empty(batch, config.num_tokens, dtype=torch.long, device="meta")
    caches = [KeyValueCache(config.num_tokens) for _ in model.blocks] if cache else []
    if caches and n:
        model.encode(ids[:, :n], caches)
    return count_flops(lambda: next_token_logits(model, ids, n, caches))


def autoregressive_sampling(config: TransformerConfig, batch: int) -> int:
    """FLOPs of sampling all tokens with a cache. They grow linearly with the position, so that the
    mean of the first and the last stands for all."""
    first, last = (next_token(config, batch, n, cache=True) for n in (0, config.num_tokens - 1))
    return config.num_tokens * (first + last) // 2


def tokenizer_forward(params: Params, num_classes: int, model: Tokenizer, batch: int) -> Tensor:
    """The forward pass of the tokenizer's training step, with its perceptual loss."""
    images = image_batch(params, batch)
    rebuilt, quantized = model(images)
    perceptual = _perceptual(params, num_classes)(images, rebuilt)
    return perceptual.mean() + rebuilt.sum() + quantized.distances.sum()


@dataclass(frozen=True)
class AdversarialStep:
    """FLOPs that the discriminator adds to a training step of the tokenizer."""

    generator: int  # the adversarial part of the tokenizer's loss, and its adaptive weight
    discriminator: int
    r1: int  # in the steps that have it


def adversarial_step(params: Params, num_classes: int) -> AdversarialStep:
    network = on_meta(lambda: discriminator_of(params))
    real, fake = (image_batch(params, params.tokenizer.batch_size) for _ in range(2))
    judging = count_flops(lambda: discriminator_loss(network(real), network(fake)).backward())
    # A view, as the counter's hooks on modules cannot take a leaf that asks for a gradient.
    r1 = count_flops(lambda: r1_penalty(lambda x: network(x.view_as(x)), real).backward())
    network.requires_grad_(False)
    fake.requires_grad_(True)
    generator = count_flops(lambda: generator_loss(network(fake.view_as(fake))).backward())
    if params.tokenizer.adaptive_weight:
        generator += _adaptive_weight(params, num_classes, network)
    return AdversarialStep(generator, judging, r1)


def _adaptive_weight(params: Params, num_classes: int, network: nn.Module) -> int:
    """FLOPs of the two gradients at the decoder's last layer, without the losses themselves."""
    last = on_meta(lambda: Tokenizer(tokenizer_config(params))).decoder.out
    batch, side = params.tokenizer.batch_size, params.data.image_size
    real = image_batch(params, batch)
    maps = torch.empty(batch, last.in_channels, side, side, device="meta")
    perceptual = _perceptual(params, num_classes)

    def losses() -> tuple[Tensor, Tensor]:
        rebuilt = last(maps)
        return perceptual(real, rebuilt).mean(), generator_loss(network(rebuilt))

    both = count_flops(lambda: adaptive_weight(*losses(), last.weight))
    return both - count_flops(losses)


def discriminator_of(params: Params) -> PatchDiscriminator | StyleGanDiscriminator:
    p, data = params.tokenizer, params.data
    return make_discriminator(
        p.discriminator, data.channels, p.discriminator_filters, data.image_size
    )


@cache
def tokenizer_coding(config: TokenizerConfig, grid: int, batch: int) -> tuple[int, int]:
    """FLOPs of encoding and of decoding `batch` images of grid × grid tokens."""
    model, side = on_meta(lambda: Tokenizer(config)), grid * config.downsampling
    images = torch.empty(batch, config.channels, side, side, device="meta")
    tokens = torch.empty(batch, grid, grid, dtype=torch.long, device="meta")
    return count_flops(lambda: model.encode(images)), count_flops(lambda: model.decode(tokens))


def classifier_of(params: Params, num_classes: int) -> Classifier:
    return Classifier(classifier_config(params, num_classes))


def image_batch(params: Params, batch: int) -> Tensor:
    side = params.data.image_size
    return torch.empty(batch, params.data.channels, side, side, device="meta")


def _perceptual(params: Params, num_classes: int) -> Perceptual:
    if params.tokenizer.perceptual == "classifier":
        classifier = on_meta(lambda: classifier_of(params, num_classes)).requires_grad_(False)
        classifier.eval()  # as it is there: in training one image may be too few for batch norms
        return lambda a, b: classifier_distance(classifier, a, b)
    import torchvision

    name = params.tokenizer.perceptual.removeprefix("lpips_")
    # LPIPS reads no map behind the last convolution: small images have none there.
    full_name, last = {
        "vgg": ("vgg16", 30),
        "alex": ("alexnet", 12),
        "squeeze": ("squeezenet1_1", 13),
    }[name]
    network = on_meta(lambda: torchvision.models.get_model(full_name, weights=None))
    features = network.features[:last].requires_grad_(False)
    return lambda a, b: sum(features(x.expand(-1, 3, -1, -1)).sum() for x in (a, b))
