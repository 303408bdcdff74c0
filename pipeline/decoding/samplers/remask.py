"""Masking generated tokens again (Wang et al., ReMDM, 2025)."""

import math
from typing import TYPE_CHECKING

from pipeline.decoding.samplers.iteration import Iteration, mask_by_confidence

if TYPE_CHECKING:
    from torch import Tensor


def remask(i: Iteration, rescaled: bool) -> "Tensor":
    """Mask each generated token again with probability σ, then reveal random tokens until
    `mask_len` are masked; in ReMDM, the number is random."""
    chance = i.uniform()
    sigma = remask_probability(i.ratio, i.next_ratio, i.remasking, rescaled)
    again = ~i.masked & i.unknown & (chance < sigma)
    return mask_by_confidence(
        (chance - 1).where(again, chance.where(i.masked, math.inf)), i.mask_len
    )


def remask_probability(
    ratio: "Tensor", next_ratio: "Tensor", strength: float, rescaled: bool
) -> "Tensor":
    """The probability σ that a generated token is masked again.

    Args:
        ratio: γ(t/T), the mask ratio before the iteration; `next_ratio` is the ratio after it.
        strength: η. σ is η·γ((t + 1)/T)/(1 − γ(t/T)), at most 1, if `rescaled`, else this quotient
            without η, at most η.
    """
    quotient = next_ratio / (1 - ratio)
    return (strength * quotient).clamp(max=1) if rescaled else quotient.clamp(max=strength)
