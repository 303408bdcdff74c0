"""Skipping the batches at which the loss or the gradient spikes, in long trainings."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.ranks import Ranks
from pipeline.training.loop.finite import Diverged

DECAY = 0.99  # of the running means: they look back on about 100 steps
WARM = 100  # steps that are only looked at
LONGEST = 20  # batches left out in a row, after which it is no spike


class SpikeGuard:
    """Compares each step's loss and gradient norm with their running means.

    Args:
        factor: how many times its mean a value may be.
        key: the param that sets it, for the error.
    """

    def __init__(self, factor: float, key: str):
        self.factor, self.key = factor, key
        self.means: dict[str, float] = {}
        self.taken = self.skipped = self.in_a_row = 0

    def skips(self, step: int, values: dict[str, float]) -> bool:
        """Whether to skip the step: a value is not finite, or too far above its mean. A line says
        so.

        Args:
            values: of the step, the same on every worker.

        Raises:
            Diverged: too many steps in a row were skipped.
        """
        high = [k for k, v in values.items() if not v <= self.factor * self.means.get(k, v)]
        if high and self.taken >= WARM:
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            value = values[high[0]]
            why, way_out = "not finite", "turn bf16 off"
            if math.isfinite(value):
                why, way_out = f"over {self.factor:g} times its mean", f"raise {self.key}"
            text = f"{high[0]} {value:.3g} is {why}"
            if self.in_a_row > LONGEST:
                reason = f"{text} in {self.in_a_row} steps in a row, up to step {step + 1}"
                way_out = f"lower the learning rate, or {way_out}, and run again"
                raise Diverged("training", reason, way_out)
            print(f"step {step + 1} skipped: {text} ({self.skipped} in all)", flush=True)
            return True
        self.taken, self.in_a_row = self.taken + 1, 0
        weight = max(1 - DECAY, 1 / self.taken)  # at first the plain mean
        for key, value in values.items():
            mean = self.means.get(key, value)
            self.means[key] = mean + weight * (value - mean)
        return False

    def state_dict(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("factor", "key")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def spike_guard(factor: float | None, section: str) -> SpikeGuard | None:
    """The guard for a section of params.yaml, or None if its `spike_factor` is null."""
    return None if factor is None else SpikeGuard(factor, f"{section}.spike_factor")


def total_norm(model: nn.Module) -> Tensor:
    """The Euclidean norm of all gradients of a network, a scalar."""
    return nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def left_out(losses: dict[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """What is logged of a skipped step: its losses, or nothing if one of them is not finite on some
    worker."""
    logged = {key: loss for key, loss in losses.items() if key != "gradient_norm"}
    return logged if all(map(math.isfinite, shared(logged, ranks).values())) else {}


@torch.no_grad()
def put_back(tensors: Iterable[Tensor], before: Iterable[Tensor]) -> None:
    """Give tensors the values that they had before a skipped step."""
    for tensor, value in zip(tensors, before, strict=True):
        tensor.copy_(value)


def shared(losses: dict[str, Tensor], ranks: Ranks) -> dict[str, float]:
    """The losses' means over the workers, so that all of them skip a step or none."""
    values = torch.stack([loss.detach().float() for loss in losses.values()])
    means = ranks.total(values) / ranks.workers
    return dict(zip(losses, means.cpu().tolist(), strict=True))
