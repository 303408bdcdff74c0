"""Collective operations of data-parallel workers, in PyTorch's default process group."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Ranks:
    """A data-parallel worker's rank, the number of workers, and collective operations. All workers
    must call the same methods in the same order."""

    rank: int = 0
    workers: int = 1

    def rows(self, batch: Any) -> Any:
        """Return this worker's share of a batch: a slice of consecutive rows. The workers' shares
        differ in size by at most one row."""
        first, last = (rank * len(batch) // self.workers for rank in (self.rank, self.rank + 1))
        return batch[first:last]

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over the workers, bit-identical on all workers, without gradients."""
        if self.workers == 1:
            return values
        nccl = torch.distributed.get_backend() == "nccl"  # NCCL takes no CPU tensors
        there = values.detach().to("cuda" if nccl else values.device)
        summed = there.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(summed)
        return summed.to(values.device)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the workers; gradients flow back to all workers."""
        return values if self.workers == 1 else _Mean.apply(values, self)

    def average_gradients(self, module: nn.Module) -> None:
        """Replace each gradient of a module by its mean over the workers, in one all-reduce. Unlike
        `DistributedDataParallel`, this method also works for gradient penalties, and for networks
        whose submodules are called separately."""
        if self.workers == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = self.total(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = (flat / self.workers).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def sum_over(self, batches: Sequence[Batch], measure: Callable[[int, Batch], float]) -> float:
        """The sum of `measure(index, batch)` over batches, which are divided among the workers. The
        values are added in batch order, so the sum is bit-identical for any number of workers."""
        values = torch.zeros(len(batches), dtype=torch.float64)
        for number in range(self.rank, len(batches), self.workers):
            values[number] = measure(number, batches[number])
        return sum_in_order(self.total(values))


ALONE = Ranks()


class _Mean(torch.autograd.Function):
    """Averages values over the workers in the forward pass, and gradients in the backward pass."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.total(values) / ranks.workers

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.total(gradients[0]) / ctx.ranks.workers, None


def sum_in_order(values: Tensor) -> float:
    """Add values (n,) in order. (`torch.sum` and `sum` may round differently on other systems.)"""
    return reduce(add, values.tolist(), 0.0)
