"""The data-parallel workers of a training, connected by PyTorch's process group."""

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
    """One data-parallel worker of a training, and the number of workers. All workers call the same
    methods in the same order."""

    rank: int = 0
    workers: int = 1

    def rows(self, batch: Any) -> Any:
        """This worker's rows of a batch: consecutive rows, as many as for every other worker (one
        more or less if the batch does not divide evenly)."""
        first, last = (rank * len(batch) // self.workers for rank in (self.rank, self.rank + 1))
        return batch[first:last]

    def total(self, values: Tensor) -> Tensor:
        """The sum of the values over the workers, with the same bits on each worker and without a
        gradient."""
        if self.workers == 1:
            return values
        nccl = torch.distributed.get_backend() == "nccl"  # it takes no CPU tensors
        there = values.detach().to("cuda" if nccl else values.device)
        summed = there.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(summed)
        return summed.to(values.device)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of the values over the workers; gradients flow back to all of them."""
        return values if self.workers == 1 else _Mean.apply(values, self)

    def average_gradients(self, module: nn.Module) -> None:
        """Replace each gradient by its mean over the workers, in one message. Unlike
        `DistributedDataParallel`, this suits networks whose parts are called separately, and
        gradient penalties."""
        if self.workers == 1:
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = self.total(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = (flat / self.workers).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def sum_over(self, batches: Sequence[Batch], measure: Callable[[int, Batch], float]) -> float:
        """The sum of measure(number, batch) over the batches, each measured by one worker and added
        in the order of the batches, so that any number of workers gives the same bits."""
        values = torch.zeros(len(batches), dtype=torch.float64)
        for number in range(self.rank, len(batches), self.workers):
            values[number] = measure(number, batches[number])
        return sum_in_order(self.total(values))


ALONE = Ranks()


class _Mean(torch.autograd.Function):
    """The mean over the workers, for values and for gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.total(values) / ranks.workers

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.total(gradients[0]) / ctx.ranks.workers, None


def sum_in_order(values: Tensor) -> float:
    """The sum of values (n,), added in order; `torch.sum` and Python's `sum` may differ."""
    return reduce(add, values.tolist(), 0.0)
