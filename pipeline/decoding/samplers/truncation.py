"""Softmax temperature, top-k and top-p, applied to logits before tokens are drawn."""

import torch
from torch import Tensor


def truncated(
    logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """Divide logits (…, K) by a softmax temperature, then set logits of improbable codes to -inf.

    Args:
        top_k: number of most probable codes to keep (ties are kept too); 0 keeps all codes.
        top_p: keep the fewest codes whose total probability is at least `top_p`; 1 keeps all codes.
    """
    if temperature != 1:
        logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        ordered, index = logits.softmax(dim=-1).sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # the probability of more probable codes
        excluded = torch.zeros_like(before, dtype=torch.bool).scatter(-1, index, before >= top_p)
        logits = logits.masked_fill(excluded, -torch.inf)
    return logits
