"""Samplers: rules that choose which tokens are masked after an iteration of decoding.

The paper's sampler is `confidence`; later work proposed the others. All share the loop of `decode`,
which draws a code for every masked token before it calls the sampler. This module does not import
torch, which takes a second.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Iteration:
    """The state of decoding when a sampler is called, in iteration t of T (0-based).

    Shapes: B images of N tokens, K codes. Progress r is (t + 1)/T.
    """

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
        """Mask the `mask_len` tokens with the lowest scores (B, N) among the masked tokens."""
        return mask_by_confidence(score.where(self.masked, math.inf), self.mask_len)

    def noisy(self, score: "Tensor") -> "Tensor":
        """Add annealed Gumbel noise to scores (B, N)."""
        return score + self.noise_scale * self.gumbel()


def mask_by_confidence(confidence: "Tensor", mask_len: "Tensor") -> "Tensor":
    """Mask the `mask_len` least confident tokens of each row.

    The cut-off is the mask_len-th smallest confidence, 0-based; less confident tokens are masked.

    Args:
        confidence: (B, N), infinite at tokens that must not be masked.
        mask_len: (B,) int64; capped at N - 1, so a grid of a single token is left unmasked.
    """
    mask_len = mask_len.clamp(max=confidence.shape[-1] - 1)
    cut_off = confidence.sort(dim=-1).values.gather(-1, mask_len[:, None])
    return confidence < cut_off


def negative_entropy(log_probs: "Tensor") -> "Tensor":
    """Σ p log p of each prediction (B, N, K), in nats."""
    # A code that `top_k` or `top_p` excludes has log-probability -inf, and 0·(-inf) is NaN.
    return (log_probs.exp() * log_probs.clamp(min=-1e4)).sum(dim=-1)


def margin(log_probs: "Tensor") -> "Tensor":
    """The difference of the two largest probabilities of each prediction (B, N, K)."""
    largest = log_probs.topk(min(2, log_probs.shape[-1]), dim=-1).values.exp()
    return largest[..., 0] - largest[..., -1]


def halton_order(i: Iteration) -> "Tensor":
    """Reveal tokens in the Halton order, rolled by a random offset per image (Besnier et al.,
    Halton-MaskGIT, 2025)."""
    count = i.masked.shape[-1]
    rank = i.mask_len.new_tensor(halton_rank(count))
    return i.least(-(rank + (i.offset * count).long()).remainder(count).to(i.log_prob.dtype))


@cache
def halton_rank(num_tokens: int) -> list[int]:
    """Position of each token of a square grid, row by row, in the Halton sequence with bases 2
    (rows) and 3 (columns). Later points in a token's cell are skipped."""
    side, order, number = math.isqrt(num_tokens), dict[int, int](), 0
    while len(order) < num_tokens:
        row, column = (int(side * _radical_inverse(number, base)) for base in (2, 3))
        order.setdefault(row * side + column, len(order))
        number += 1
    return [order[token] for token in range(num_tokens)]


def _radical_inverse(number: int, base: int) -> float:
    """The number with its digits mirrored at the point: 6 = 110 in base 2 becomes 0.011 = 3/8."""
    value, unit = 0.0, 1.0
    while number:
        unit /= base
        number, digit = divmod(number, base)
        value += digit * unit
    return value


def remask(i: Iteration, rescaled: bool) -> "Tensor":
    """Mask each generated token again with probability σ, then reveal random tokens until
    `mask_len` are masked (Wang et al., ReMDM, 2025; there the number is random)."""
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


# Sampler -> function that returns the tokens to mask, (B, N) bool. To add a sampler, add one line
# here; params.yaml, the commands, the demo and the Python API then accept the name.
SAMPLERS: "dict[str, Callable[[Iteration], Tensor]]" = {
    "confidence": lambda i: i.least(i.noisy(i.log_prob)),  # the paper's (section 3.2)
    "entropy": lambda i: i.least(i.noisy(negative_entropy(i.log_probs))),
    "margin": lambda i: i.least(i.noisy(margin(i.log_probs))),
    "random": lambda i: i.least(i.uniform()),  # ancestral sampling (Sahoo et al., MDLM, 2024)
    "halton": halton_order,
    "remask_capped": lambda i: remask(i, rescaled=False),
    "remask_rescaled": lambda i: remask(i, rescaled=True),
}
