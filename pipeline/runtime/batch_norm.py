"""Batch normalisation over the whole batch that workers share."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.runtime.ranks import Ranks


def normalize_together(network: nn.Module, ranks: Ranks) -> nn.Module:
    """The network with layers that normalise by the statistics of all workers' rows, in place of
    those that do by their own. Weights, their names and what the network predicts stay the same.

    (torch's `SyncBatchNorm` knows no CPUs, and stops a GPU three times in each layer.)
    """
    if ranks.workers == 1:
        return network
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm2d):
                setattr(parent, name, _SharedBatchNorm(layer, ranks))
    return network


class _SharedBatchNorm(nn.BatchNorm2d):
    """A layer of torch's, with its weights, over all workers' rows."""

    def __init__(self, layer: nn.BatchNorm2d, ranks: Ranks):
        super().__init__(layer.num_features, layer.eps, layer.momentum)
        self.ranks = ranks
        self.weight, self.bias = layer.weight, layer.bias
        for name, buffer in layer.named_buffers():
            setattr(self, name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        return _Normalized.apply(x, self.weight, self.bias, self)


class _Normalized(torch.autograd.Function):
    """torch's own kernels, with the statistics, and the sums of gradients, of all workers."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, layer: _SharedBatchNorm
    ) -> Tensor:
        # New ones, in float32 as the result is: even with a momentum of 0 a NaN would stay in them.
        zeros, ones = torch.zeros_like(weight), torch.ones_like(weight)
        own_mean, own_variance = torch.batch_norm_update_stats(x, zeros, ones, 0.0)
        own_mean, own_variance = own_mean.double(), own_variance.double()
        own = torch.stack([own_mean, own_variance + own_mean**2])
        mean, square = layer.ranks.total(own).div_(layer.ranks.workers).unbind()
        variance = (square - mean**2).float()
        mean = mean.float()
        _track(layer, mean, variance, len(x) * x[0, 0].numel() * layer.ranks.workers)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.layer = layer
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=layer.eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        (gradient,), layer = gradients, ctx.layer
        zeros, ones = torch.zeros_like(weight), torch.ones_like(weight)
        inverse = (variance + layer.eps).rsqrt()
        _, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward.default(
            gradient, x, weight, None, None, mean, inverse, True, layer.eps, [False, True, True]
        )
        rows = len(x) * x[0, 0].numel() * layer.ranks.workers
        by_x, by_all = layer.ranks.total(torch.stack([d_weight, d_bias])).div_(-rows).unbind()
        # scale · (g − mean(g) − x̂ · mean(g · x̂)): two linear maps, by the layer that only predicts.
        scale = weight * inverse
        own = F.batch_norm(gradient, zeros, ones, scale, zeros, eps=0.0)
        others = F.batch_norm(x, mean, variance, scale * by_x, scale * by_all, eps=layer.eps)
        return own.add_(others), d_weight, d_bias, None


def _track(layer: nn.BatchNorm2d, mean: Tensor, variance: Tensor, rows: int) -> None:
    """Move the layer's running statistics, as torch's does."""
    assert layer.running_mean is not None and layer.running_var is not None
    assert layer.num_batches_tracked is not None and layer.momentum is not None
    layer.num_batches_tracked += 1
    layer.running_mean.lerp_(mean, layer.momentum)
    layer.running_var.lerp_(variance * rows / (rows - 1), layer.momentum)
