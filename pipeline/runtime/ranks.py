"""The data-parallel workers of a training, as one of them sees the others."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pipeline.runtime.board import Board, open_board
from pipeline.runtime.errors import UserError
from pipeline.runtime.exchange import Exchange, Sum
from pipeline.runtime.shares import ALL, Share

FEW = 4096  # numbers that each worker sends to all others at once, in place of round and round
# Devices whose gradients go in one message after `backward`, which needs all of their cores.
AFTERWARDS = ("cpu",)


@dataclass(frozen=True)
class Ranks:
    """A worker and the others, with whom it shares every batch.

    torch's process group, which Ray Train makes, connects them, and on the CPUs of one machine a
    `Board`: all of them call the same methods in the same order. A worker that is alone sends
    nothing, and gets back what it gave.
    """

    rank: int = 0
    workers: int = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return Ranks, (self.rank, self.workers)  # board and exchanges are no other process's

    def rows(self, batch: Any) -> Any:
        """This worker's rows of a batch: consecutive ones, and (but for one, where they do not
        divide) as many as any other's.

        Raises:
            UserError: they are fewer than the workers.
        """
        if len(batch) < self.workers:
            raise UserError(
                f"{len(batch)} images are too few for {self.workers} workers to share; lower "
                f"ray.num_workers, or cas.workers_per_classifier"
            )
        first, last = (rank * len(batch) // self.workers for rank in (self.rank, self.rank + 1))
        return batch[first:last]

    def total(self, values: Tensor) -> Tensor:
        """The values, added up over the workers: the same bits for all."""
        if self.workers == 1:
            return values
        values = values.detach()
        if values.device.type == "cpu" and self._board is not None:
            return self._board.total(values)
        if values.numel() > FEW:
            values = values.clone()
            torch.distributed.all_reduce(values)
            return values
        # What counts is how often the workers wait for each other: half as often as above.
        parts = [torch.empty_like(values) for _ in range(self.workers)]
        torch.distributed.all_gather(parts, values.contiguous())
        return torch.stack(parts).sum(dim=0, dtype=values.dtype)

    @cached_property
    def _board(self) -> Board | None:
        """Opened by the first sum that suits it, which all workers come to at once."""
        return open_board(self.rank, self.workers)

    def mean(self, values: Tensor) -> Tensor:
        """Their mean over the workers, through which gradients reach all of them."""
        return values if self.workers == 1 else _Mean.apply(values, self)

    def average_gradients(self, module: nn.Module) -> None:
        """Give every worker the mean of all gradients: after `backward` of a mean over its own
        rows, that of the mean over the whole batch.

        On a GPU they are sent while `backward` goes on, but for the first time for a module. All
        workers must call `backward` alike, since what it sends itself has its place in that order.
        (`DistributedDataParallel` does the same for a network that is one call. It does not suit
        one whose parts are called apart, or whose gradient is differentiated.)
        """
        if self.workers == 1:
            return
        if next(module.parameters()).device.type not in AFTERWARDS:
            self._exchange(module).average(module.parameters(), self.workers)
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        flat = self.total(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = (flat / self.workers).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def _exchange(self, module: nn.Module) -> Exchange:
        """The module's, for the parameters that have a gradient at its first call."""
        if module not in self._exchanges:
            trained = [p for p in module.parameters() if p.grad is not None]
            self._exchanges[module] = Exchange(trained, self.start_total)
        return self._exchanges[module]

    @cached_property
    def _exchanges(self) -> WeakKeyDictionary[nn.Module, Exchange]:
        return WeakKeyDictionary()

    def start_total(self, values: Tensor) -> Sum:
        """Begin to add values up over the workers, in place; they are the total once it is waited
        for."""
        return torch.distributed.all_reduce(values, async_op=True)

    def share(self, device: torch.device) -> Share:
        """This worker's share of what is measured on the device."""
        if self.workers == 1:
            return ALL
        return Share(self.rank, self.workers, lambda values: self.total(values.to(device)).cpu())


ALONE = Ranks()


class _Mean(torch.autograd.Function):
    """The mean over the workers, of values and of gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.total(values) / ranks.workers

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.total(gradients[0]) / ctx.ranks.workers, None
