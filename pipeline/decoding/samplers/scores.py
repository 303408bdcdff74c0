"""Scores of how certain a prediction is, which samplers use instead of the paper's confidence."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def negative_entropy(log_probs: "Tensor") -> "Tensor":
    """The negative entropy Σ p log p, (B, N) in nats, from log-probabilities (B, N, K)."""
    # A code that `top_k` or `top_p` excludes has log-probability -inf, and 0·(-inf) is NaN.
    return (log_probs.exp() * log_probs.clamp(min=-1e4)).sum(dim=-1)


def margin(log_probs: "Tensor") -> "Tensor":
    """The gap (B, N) between the two largest probabilities, from log-probabilities (B, N, K)."""
    largest = log_probs.topk(min(2, log_probs.shape[-1]), dim=-1).values.exp()
    return largest[..., 0] - largest[..., -1]
