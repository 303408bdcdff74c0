"""Dropout, attention and linear layers that are faster on a CPU than PyTorch's layers. The results
of attention and linear layers equal PyTorch's up to rounding."""

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class Dropout(nn.Module):
    """Dropout that is faster on a CPU than PyTorch's. (PyTorch's dropout takes a sixth of a CPU
    training step at the paper's size.) Each element uses 16 random bits, so p is rounded to a
    multiple of 1/65,536."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():  # PyTorch's is fast here
            return F.dropout(x, self.p)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        kept = bits.view(torch.int16)[: x.numel()].view(x.shape).ge_(dropped - 2**15)
        scale = torch.tensor(2**16 / (2**16 - dropped), dtype=x.dtype)
        if x.dtype == torch.bfloat16:  # multiplies bit patterns, which saves a conversion
            return x * kept.mul_(scale.view(torch.int16)).view(torch.bfloat16)
        return x * kept.to(x.dtype).mul_(scale)


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: Dropout, causal: bool) -> Tensor:
    """softmax(q·kᵀ / √d)·v, with dropout of the softmax; all tensors are (B, heads, S, d)."""
    p = dropout.p if dropout.training else 0.0
    if q.device.type != "cpu" or (p == 0 and q.dtype == torch.float32):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=causal)
    # On a CPU, torch's attention with dropout computes in float32, and bfloat16 is slow. Matrix
    # products also copy non-contiguous inputs, but slowly if the inputs are transposed too.
    q, k, v = (x.contiguous() for x in (q, k, v))
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if causal:
        scores = scores + torch.full(scores.shape[-2:], -torch.inf, dtype=scores.dtype).triu(1)
    return dropout(scores.softmax(dim=-1)) @ v


class LinearGelu(nn.Linear):
    """A linear layer followed by GELU in the tanh approximation, as in the authors' code."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(super().forward(x), approximate="tanh")


def onednn_takes_bfloat16() -> bool:
    # A private API: no public API tells what oneDNN supports (build, CPU, ONEDNN_MAX_CPU_ISA).
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class BFloat16Linear(nn.Module):
    """A linear layer in bfloat16, for prediction only. On a CPU, the weights are stored in oneDNN's
    layout, which avoids reordering them at every call. Results equal those of `F.linear`, but
    for a `LinearGelu`, oneDNN does not round to bfloat16 between the linear layer and the GELU."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.gelu = isinstance(linear, LinearGelu)
        self.bias = nn.Parameter(linear.bias.detach().bfloat16(), requires_grad=False)
        weight = linear.weight.detach().bfloat16()
        on_cpu = weight.device.type == "cpu" and type(weight) is Tensor  # not a fake tensor
        self.laid_out = on_cpu and onednn_takes_bfloat16()
        if self.laid_out:
            # A private API: no public API of torch stores weights in oneDNN's layout.
            weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.bfloat16()
        if self.laid_out:
            after: tuple[str, list[float], str]
            after = ("gelu", [], "tanh") if self.gelu else ("none", [], "")
            # A private API, as above: the product with reordered weights.
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *after)
        y = F.linear(x, self.weight, self.bias)
        return F.gelu(y, approximate="tanh") if self.gelu else y


def with_bfloat16_linears(model: Network) -> Network:
    """Return a copy of a model with linear layers in bfloat16, for use without gradients. The copy
    avoids autocast's conversion of the weights at every call. Results are the same as under
    autocast, except those of a `LinearGelu` on a CPU (see `BFloat16Linear`). The copy shares all
    other parameters with the model."""
    copied = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    for parent in list(copied.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(parent, name, BFloat16Linear(layer))
    return copied
