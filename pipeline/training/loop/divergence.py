"""Ends trainings that diverge: a loss or a weight is not finite."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.data.ranks import Ranks
from pipeline.runtime.errors import UserError

CHECK_EVERY = 10  # steps between checks of the losses: a check waits for the GPU and the workers


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


def mean_over_workers(values: Mapping[str, Tensor | float], ranks: Ranks) -> dict[str, float]:
    """The mean of each value over all workers, the same on every worker."""
    if not values:
        return {}
    each = [torch.as_tensor(value, dtype=torch.float64).detach() for value in values.values()]
    means = ranks.total(torch.stack(each)) / ranks.workers
    return dict(zip(values, means.tolist(), strict=True))
