"""Samples images of given classes with MaskGIT or with the autoregressive baseline."""

from typing import Any

import torch
from torch import Tensor

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive
from pipeline.data.seeds import mix
from pipeline.decoding.iterative import generate
from pipeline.decoding.settings import DecodingSettings
from pipeline.tokenizer import Tokenizer, tokens_to_images
from pipeline.transformer import MaskGitTransformer

Network = MaskGitTransformer | AutoregressiveTransformer


def balanced_labels(count: int, num_classes: int) -> Tensor:
    """Labels (count,) that cycle through the classes 0, 1, …, num_classes - 1."""
    return torch.arange(count) % num_classes


def sample_tokens(model: Network, settings: DecodingSettings, labels: Tensor, seed: int) -> Tensor:
    """Sample tokens (B, N) int64 for class labels (B,) from MaskGIT or from the autoregressive
    baseline, which uses only the settings bf16, softmax_temperature, top_k and top_p."""
    if isinstance(model, AutoregressiveTransformer):
        how: Any = {"bf16": settings.bf16, "temperature": settings.softmax_temperature}
        how |= {"top_k": settings.top_k, "top_p": settings.top_p}
        return generate_autoregressive(model, labels, seed=seed, **how)
    return list(generate(model, labels, settings, seed=seed))[-1].sampled


class Sampler:
    """Draws images of given classes with a transformer (MaskGIT or baseline) and a tokenizer."""

    def __init__(self, model: Network, tokenizer: Tokenizer):
        self.model, self.tokenizer = model, tokenizer

    def __call__(self, settings: DecodingSettings, labels: Tensor, seed: int) -> Tensor:
        """Sample an image for each label (B,). Returns (B, C, H, W) uint8 on the CPU."""
        tokens = sample_tokens(self.model, settings, labels, seed)
        return tokens_to_images(self.tokenizer, tokens)


def sample_batches(
    settings: DecodingSettings, labels: Tensor, *, batch_size: int, seed: int
) -> list[tuple[DecodingSettings, Tensor, int]]:
    """Split labels into batches. Returns the arguments of `Sampler.__call__` for each batch. Each
    batch has its own seed, so that batches may be sampled in any order."""
    return [
        (settings, chunk.clone(), mix(seed, "batch", number))  # a view would pickle all labels
        for number, chunk in enumerate(labels.split(batch_size))
    ]
