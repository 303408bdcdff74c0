"""Iterative parallel decoding (paper, section 3.2; details as in the authors' release)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.masking import mask_ratio


class DecodingStep(NamedTuple):
    """What one iteration left behind; all (B, N)."""

    sampled: Tensor  # int64: every token, the full sample before re-masking
    masked: Tensor  # bool: True where the token is masked again for the next iteration


def num_tokens_to_mask(
    schedule: str, step: int, iterations: int, unknown_at_start: Tensor, unknown_now: Tensor
) -> Tensor:
    """How many tokens stay masked after iteration `step` (0-based), per sample.

    ⌊N·γ((step + 1)/T)⌋, but at least one prediction is kept an iteration and at least one token
    stays masked, so that every iteration has work to do.

    Args:
        unknown_at_start: (B,) tokens that were unknown when decoding began; N of the schedule.
        unknown_now: (B,) tokens still masked when this iteration began.

    Returns:
        (B,) int64.
    """
    ratio = mask_ratio(schedule, (step + 1) / iterations, unknown_at_start)
    scheduled = torch.floor(unknown_at_start * ratio).long()
    return torch.minimum(unknown_now - 1, scheduled).clamp(min=1)


def gumbel_noise(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise, -log(-log(u)), drawn on the generator's device."""
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    tiny = torch.finfo(uniform.dtype).tiny
    exponential = (-uniform.clamp(min=tiny).log()).clamp(min=tiny)
    return -exponential.log().to(device)


def mask_by_confidence(confidence: Tensor, mask_len: Tensor) -> Tensor:
    """Mask the `mask_len` least confident tokens of each row.

    The cut-off is the mask_len-th smallest confidence, 0-based; what lies strictly below is masked.

    Args:
        confidence: (B, N), infinite at tokens that must not be masked.
        mask_len: (B,) int64; capped at N - 1, so a grid of a single token is left unmasked.
    """
    mask_len = mask_len.clamp(max=confidence.shape[-1] - 1)
    cut_off = confidence.sort(dim=-1).values.gather(-1, mask_len[:, None])
    return confidence < cut_off


def sample_categorical(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from softmax(logits) over the last axis, by the Gumbel-max identity."""
    return (logits + gumbel_noise(logits.shape, generator, logits.device)).argmax(dim=-1)


@torch.no_grad()
def decode(
    predict: Callable[[Tensor, Tensor], Tensor],
    tokens: Tensor,
    unknown: Tensor,
    *,
    iterations: int,
    schedule: str,
    choice_temperature: float,
    generator: torch.Generator,
) -> list[DecodingStep]:
    """Fill the unknown tokens in `iterations` parallel steps.

    Args:
        predict: maps tokens (B, N) and the mask (B, N; True is [MASK]) to logits (B, N, K) over
            the K codes. Tokens under the mask are ignored.
        tokens: (B, N) int64; values at unknown positions are ignored.
        unknown: (B, N) bool; True where a token is to be generated. Rows may differ in number.
        iterations: T of the paper.
        schedule: name of the mask schedule γ.
        choice_temperature: scale of the Gumbel noise on the confidence, annealed linearly to 0.
        generator: source of all randomness.

    Returns:
        One `DecodingStep` an iteration; the answer is the last one's `sampled`.
    """
    unknown_at_start = unknown.sum(dim=-1)
    masked = unknown
    steps = []
    for step in range(iterations):
        ratio = (step + 1) / iterations
        logits = predict(tokens, masked).float()
        sampled = torch.where(masked, sample_categorical(logits, generator), tokens)

        # Known tokens may lie outside the codebook (another vocabulary): clamp before the gather,
        # their confidence is overwritten below.
        index = sampled.clamp(0, logits.shape[-1] - 1)[..., None]
        log_prob = logits.log_softmax(dim=-1).gather(-1, index)[..., 0]
        noise = gumbel_noise(log_prob.shape, generator, log_prob.device)
        confidence = log_prob + choice_temperature * (1 - ratio) * noise
        # A token known before this step is never masked again.
        confidence = torch.where(masked, confidence, torch.inf)

        mask_len = num_tokens_to_mask(
            schedule, step, iterations, unknown_at_start, masked.sum(dim=-1)
        )
        # A row without unknown tokens has only infinite confidence: nothing lies below its cut-off.
        tokens, masked = sampled, mask_by_confidence(confidence, mask_len)
        steps.append(DecodingStep(sampled, masked))
    return steps
