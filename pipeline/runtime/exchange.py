"""Averaging gradients over the workers while `backward` still computes others."""

import weakref
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Protocol

import torch
from torch import Tensor, nn

BUCKET = 25 << 20  # bytes of gradients in a message, as of `DistributedDataParallel`


class Sum(Protocol):
    """A sum over the workers that is on its way, as `torch.distributed` returns it."""

    def wait(self) -> object:
        """Wait for it; on a GPU, let what is computed from here on wait for it."""


class Exchange:
    """Sends a network's gradients in buckets, each when `backward` has computed all of its own.

    Buckets are sent in one order, so that all workers add up the same: that of the parameters from
    the last to the first, which is nearly that of `backward`. One that lacks a gradient is sent by
    `average`, and so are those behind it. As with any sum over the workers, all of them have to do
    the same: `backward` of the same graphs, `average` after it, gradients of the same parameters.

    A gradient that was dropped, set to zero or added to since it was sent is sent again by
    `average`. Where gradients of a bucket differ in dtype, they are added up in the widest.

    Args:
        parameters: those whose gradients to send early. They get hooks, which neither keep the
            exchange alive nor go with copies, pickles and states.
        start: begins to add up a tensor (n,) over all workers, in place.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], start: Callable[[Tensor], Sum]):
        self._start = start
        self._buckets = _buckets(list(parameters)[::-1])
        self._known = {p for bucket in self._buckets for p in bucket}
        self._computed: set[Tensor] = set()
        self._sent: list[_Message] = []  # of the first buckets
        found = weakref.ref(self)

        def note(parameter: Tensor) -> None:
            if exchange := found():
                exchange._note(parameter)

        for parameter in self._known:
            parameter.register_post_accumulate_grad_hook(note)

    def _note(self, parameter: Tensor) -> None:
        """Send what the gradient of this parameter completes."""
        self._computed.add(parameter)
        for bucket in self._buckets[len(self._sent) :]:
            if not self._computed.issuperset(bucket):
                return
            self._sent.append(_Message(bucket, self._start))

    def average(self, parameters: Iterable[nn.Parameter], workers: int) -> None:
        """Give all of a network's parameters, of which the exchange may know some, the mean of the
        workers' gradients."""
        sent, self._sent, self._computed = self._sent, [], set()
        others = [p for p in parameters if p not in self._known]
        messages = []
        for bucket, message in zip_longest([*self._buckets, others], sent):
            if message and message.is_stale(bucket):
                message.drop()
                message = None
            message = message or _Message(bucket, self._start)
            messages.append(message)
        for message in messages:
            message.receive(workers)


class _Message:
    """The gradients of a bucket, on their way to all workers.

    Attributes:
        gradients: as the parameters had them; `versions` says of each how often it was changed.
    """

    def __init__(self, bucket: list[nn.Parameter], start: Callable[[Tensor], Sum]):
        self.gradients = [p.grad for p in bucket if p.grad is not None]
        self.versions = [gradient._version for gradient in self.gradients]
        if self.gradients:
            with torch.no_grad():
                self.flat = torch.cat([gradient.flatten() for gradient in self.gradients])
            self.sum = start(self.flat)

    def is_stale(self, bucket: list[nn.Parameter]) -> bool:
        """Whether the bucket's gradients are others by now."""
        now = [p.grad for p in bucket if p.grad is not None]
        return len(now) != len(self.gradients) or not all(
            gradient is sent and gradient._version == version
            for gradient, sent, version in zip(now, self.gradients, self.versions, strict=True)
        )

    def drop(self) -> None:
        """Wait until nothing is under way any more: its memory is free then."""
        if self.gradients:
            self.sum.wait()

    def receive(self, workers: int) -> None:
        """Wait for the sum, and give each parameter the mean."""
        if not self.gradients:
            return
        self.sum.wait()
        parts = self.flat.div_(workers).split([gradient.numel() for gradient in self.gradients])
        for gradient, part in zip(self.gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


def _buckets(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters in their order, in lists of `BUCKET` bytes or what is left."""
    buckets: list[list[nn.Parameter]] = []
    room = 0
    for parameter in parameters:
        if room <= 0:
            buckets.append([])
            room = BUCKET
        buckets[-1].append(parameter)
        room -= parameter.nbytes
    return buckets
