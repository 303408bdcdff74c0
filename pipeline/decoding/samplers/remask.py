"""Masking generated tokens again (Wang et al., ReMDM, 2025)."""

import math
from typing import TYPE_CHECKING

from pipeline.decoding.samplers.iteration import Iteration, mask_by_confidence

if TYPE_CHECKING:
    from torch import Tensor


def remask(i: Iteration, rescaled: bool) -> "Tensor":
    """Mask each generated token again with probability σ. Then unmask random tokens until only
    `mask_len` are masked: first tokens that were still masked, then those just masked again. (In
    ReMDM, the number of masked tokens is random.) Returns the new mask (B, N) bool."""
    chance = i.uniform()
    sigma = remask_probability(i.ratio, i.next_ratio, i.remasking, rescaled)
    again = ~i.masked & i.unknown & (chance < sigma)
    # The lowest scores are masked: first tokens masked again (below 0), then tokens still masked.
    score = (chance - 1).where(again, chance.where(i.masked, math.inf))
    return mask_by_confidence(score, i.mask_len)


def remask_probability(
    ratio: "Tensor", next_ratio: "Tensor", strength: float, rescaled: bool
) -> "Tensor":
    """The probability σ that a generated token is masked again: min(1, η·q) if `rescaled`, else
    min(η, q), where q = γ((t + 1)/T) / (1 − γ(t/T)).

    Args:
        ratio: γ(t/T), the mask ratio before the iteration.
        next_ratio: γ((t + 1)/T), the mask ratio after the iteration.
        strength: η in [0, 1].
    """
    quotient = next_ratio / (1 - ratio)
    return (strength * quotient).clamp(max=1) if rescaled else quotient.clamp(max=strength)
