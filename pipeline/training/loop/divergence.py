"""Handles trainings that diverge: they end at a loss or weight that is not finite; with
`spike_factor`, steps whose loss or gradient spikes are skipped."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.ranks import Ranks
from pipeline.runtime.errors import UserError

CHECK_EVERY = 10  # steps between checks of the losses: a check waits for the GPU and the workers
DECAY = 0.99  # of the running means, which cover about 100 steps
WARM = 100  # steps before any is skipped
LONGEST = 20  # steps that are skipped in a row before the training ends


class Diverged(UserError):
    """The training diverged. All workers compare the same numbers and raise this error together."""


def require_finite(
    training: str, saved: int, values: dict[str, float], task: object = None
) -> None:
    """Check that losses or measurements, the same on every worker, and the weights of a task are
    finite. The last update may have broken the weights while an accuracy is still finite.

    Args:
        training: its name.
        saved: the step of the last checkpoint.

    Raises:
        Diverged: a value or a weight is not finite.
    """
    bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    for name, network in vars(task).items() if task and not bad else ():
        weights = network.state_dict().values() if isinstance(network, nn.Module) else ()
        if not all(w.isfinite().all() for w in weights if w.is_floating_point()):
            bad.append(f"weights of {name} are not finite")
    if bad:
        way_out = "lower the learning rate (or turn bf16 off) and run again"
        stays = f"; the checkpoint of step {saved} stays" * (saved > 0)
        raise Diverged(training, bad[0], way_out + stays)


class SpikeGuard:
    """Compares each step's loss and gradient norm with their running means.

    Args:
        factor: a step is skipped if a value exceeds its mean by this factor.
        key: the param that sets the factor, for the error.
    """

    def __init__(self, factor: float, key: str):
        self.factor, self.key = factor, key
        self.means: dict[str, float] = {}
        self.taken = self.skipped = self.in_a_row = 0

    @classmethod
    def of(cls, factor: float | None, section: str) -> "SpikeGuard | None":
        """The guard for a section of params.yaml; None if its `spike_factor` is null."""
        return None if factor is None else cls(factor, f"{section}.spike_factor")

    def skips(self, step: int, values: dict[str, float]) -> bool:
        """Whether to skip the step because a value is not finite or too far above its mean. Prints
        a line if so.

        Args:
            values: of the step, the same on every worker.

        Raises:
            Diverged: too many steps in a row were skipped.
        """
        high = [k for k, v in values.items() if not v <= self.factor * self.means.get(k, v)]
        if not high or self.taken < WARM:
            self.taken, self.in_a_row = self.taken + 1, 0
            weight = max(1 - DECAY, 1 / self.taken)  # at first the plain mean
            for key, value in values.items():
                mean = self.means.get(key, value)
                self.means[key] = mean + weight * (value - mean)
            return False
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        value, why, way_out = values[high[0]], "not finite", "turn bf16 off"
        if math.isfinite(value):
            why, way_out = f"over {self.factor:g} times its mean", f"raise {self.key}"
        text = f"{high[0]} {value:.3g} is {why}"
        if self.in_a_row > LONGEST:
            reason = f"{text} in {self.in_a_row} steps in a row, up to step {step + 1}"
            way_out = f"lower the learning rate, or {way_out}, and run again"
            raise Diverged("training", reason, way_out)
        print(f"step {step + 1} skipped: {text} ({self.skipped} in all)", flush=True)
        return True

    def state_dict(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("factor", "key")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


@torch.no_grad()
def put_back(tensors: Iterable[Tensor], before: Iterable[Tensor]) -> None:
    """Restore the values that tensors had before a skipped step."""
    for tensor, value in zip(tensors, before, strict=True):
        tensor.copy_(value)


def mean_over_workers(values: Mapping[str, Tensor | float], ranks: Ranks) -> dict[str, float]:
    """The mean of each value over all workers, the same on every worker."""
    if not values:
        return {}
    each = [torch.as_tensor(value, dtype=torch.float64).detach() for value in values.values()]
    means = ranks.total(torch.stack(each)) / ranks.workers
    return dict(zip(values, means.tolist(), strict=True))
