"""Class-conditional generation by either network: labels → tokens → images, batch by batch."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive
from pipeline.decoding import DecodingSettings, generate
from pipeline.runtime.seeds import mix
from pipeline.tokenizer import Tokenizer, tokens_to_images
from pipeline.transformer import MaskGitTransformer

Network = MaskGitTransformer | AutoregressiveTransformer


def balanced_labels(count: int, num_classes: int) -> Tensor:
    """(count,) labels that cycle through the classes."""
    return torch.arange(count) % num_classes


def sampler(model: Network, settings: DecodingSettings) -> Callable[[Tensor, int], Tensor]:
    """A function (labels (B,), seed) → tokens (B, N) int64 that samples from either transformer.

    Args:
        settings: the autoregressive network uses only their `bf16`.
    """
    device = next(model.parameters()).device
    if isinstance(model, AutoregressiveTransformer):
        return lambda labels, seed: generate_autoregressive(
            model, labels, seed=seed, bf16=settings.bf16, device=device
        )
    return lambda labels, seed: (
        generate(model, labels, settings, seed=seed, device=device)[-1].sampled
    )


def sample_images(
    draw: Callable[[Tensor, int], Tensor],
    tokenizer: Tokenizer,
    labels: Tensor,
    *,
    batch_size: int,
    seed: int,
) -> list[Callable[[], Tensor]]:
    """One function for each batch of `labels`, in order: it makes images (B, C, H, W) uint8.

    Each batch has its own seed, so that the functions may be called in any order, or only in part.

    Args:
        draw: a `sampler`.
    """

    def make(number: int, chunk: Tensor) -> Tensor:
        return tokens_to_images(tokenizer, draw(chunk, mix(seed, "batch", number)))

    return [partial(make, *batch) for batch in enumerate(labels.split(batch_size))]
