"""Stops training if a loss, a measurement or a weight is not finite."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.data.ranks import Ranks
from pipeline.runtime.errors import UserError

CHECK_EVERY = 10  # steps between checks of the losses; a check synchronizes GPU and workers


class Diverged(UserError):
    """Training diverged. All workers check the same numbers, so all workers raise this error."""


def require_finite(
    training: str, saved: int, values: dict[str, float], task: object = None
) -> None:
    """Raise a `Diverged` error if a value (a loss or measurement, equal on all workers) or a weight
    of `task` is not finite. (Weights may be NaN although an accuracy is finite.)

    Args:
        training: name of the training run.
        saved: step of the last checkpoint; 0 if no checkpoint exists.
    """
    bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    for name, network in vars(task).items() if task and not bad else ():
        weights = network.state_dict().values() if isinstance(network, nn.Module) else ()
        if not all(w.isfinite().all() for w in weights if w.is_floating_point()):
            bad.append(f"weights of {name} are not finite")
    if bad:
        way_out = "lower the learning rate (or turn bf16 off) and run the stage again"
        stays = f"; the checkpoint of step {saved} is kept" * (saved > 0)
        raise Diverged(training, bad[0], way_out + stays)


def mean_over_workers(values: Mapping[str, Tensor | float], ranks: Ranks) -> dict[str, float]:
    """The mean of each named value over the workers, bit-identical on all workers."""
    if not values:
        return {}
    each = [torch.as_tensor(value, dtype=torch.float64).detach() for value in values.values()]
    means = ranks.total(torch.stack(each)) / ranks.workers
    return dict(zip(values, means.tolist(), strict=True))
