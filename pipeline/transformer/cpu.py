"""Dropout and attention that are fast on a CPU. They compute the same on every device."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout. torch's own draws for one element at a time on a CPU, in one thread, which takes a
    sixth of a training step at the paper's size. Here 64 random bits decide on four elements, which
    rounds p to a multiple of 1/65,536."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():  # which has a quick one too
            return F.dropout(x, self.p)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        dropped = round(self.p * 2**16)
        kept = bits.view(torch.int16)[: x.numel()].view(x.shape).ge_(dropped - 2**15)
        return x * kept.to(x.dtype).mul_(2**16 / (2**16 - dropped))


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: Dropout, causal: bool) -> Tensor:
    """softmax(q·kᵀ / √d)·v, with dropout of the softmax; all (B, heads, S, d)."""
    p = dropout.p if dropout.training else 0.0
    if q.device.type != "cpu" or (p == 0 and q.dtype == torch.float32):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=causal)
    # On a CPU torch computes in float32 if there is dropout, and is slow in bfloat16.
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if causal:
        scores = scores + torch.full(scores.shape[-2:], -torch.inf, dtype=scores.dtype).triu(1)
    return dropout(scores.softmax(dim=-1)) @ v
