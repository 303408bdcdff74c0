"""Defines `Iteration`, the input of a sampler in one iteration of decoding."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Iteration:
    """The state of decoding when a sampler is called, in iteration t of T (0-based), for B images
    of N tokens with K codes. The progress r is (t + 1)/T."""

    masked: "Tensor"  # (B, N) bool: tokens that were masked before the iteration
    unknown: "Tensor"  # (B, N) bool: tokens to generate; the others never change
    log_probs: "Tensor"  # (B, N, K) float32: log-probabilities that the codes were drawn from
    log_prob: "Tensor"  # (B, N) float32: log-probability of each token's drawn code
    mask_len: "Tensor"  # (B,) int64: number of tokens to mask, from the mask schedule
    ratio: "Tensor"  # (B, 1) float64: γ(t/T), the scheduled mask ratio before the iteration
    next_ratio: "Tensor"  # (B, 1) float64: γ((t + 1)/T), the ratio after the iteration
    noise_scale: float  # choice temperature, annealed: τ·(1 − r)
    remasking: float  # η of the samplers `remask_…`
    gumbel: "Callable[[], Tensor]"  # draws (B, N) standard Gumbel noise
    uniform: "Callable[[], Tensor]"  # draws (B, N) from U[0, 1)
    offset: "Tensor"  # (B, 1) from U[0, 1), the same in all iterations

    def least(self, score: "Tensor") -> "Tensor":
        """Select the `mask_len` masked tokens with the lowest scores (B, N), as (B, N) bool."""
        return mask_by_confidence(score.where(self.masked, math.inf), self.mask_len)

    def noisy(self, score: "Tensor") -> "Tensor":
        """Add annealed Gumbel noise to scores (B, N)."""
        return score + self.noise_scale * self.gumbel()


def mask_by_confidence(confidence: "Tensor", mask_len: "Tensor") -> "Tensor":
    """Mask the `mask_len` least confident tokens of each image. Returns (B, N) bool.

    Args:
        confidence: confidence of each token, (B, N); infinite at tokens that must not be masked.
        mask_len: number of tokens to mask, (B,) int64; at most N - 1 tokens are masked.
    """
    mask_len = mask_len.clamp(max=confidence.shape[-1] - 1)
    cut_off = confidence.sort(dim=-1).values.gather(-1, mask_len[:, None])
    return confidence < cut_off
