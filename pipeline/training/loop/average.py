"""The moving average of a network's weights, which is what is published."""

from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Network = TypeVar("Network", bound=nn.Module)
Tensors = list[Tensor] | tuple[Tensor, ...]


class Average(AveragedModel, Generic[Network]):
    """torch's average of a network's weights, whose `module` is the averaged network."""

    module: Network


def averaged(module: Network, decay: float) -> Average[Network]:
    """Exponential moving average of a module's weights; call `update_parameters` after each step.

    The first steps weigh more, as min(decay, (1 + step) / (10 + step)), so that a short run does
    not end near its random initialisation.
    """

    @torch.no_grad()
    def move(average_list: Tensors, current: Tensors, _: Tensor | int) -> None:
        step = int(average.n_averaged) - 1  # the argument is a copy on the weights' device
        weight = 1 - min(decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(average_list, current, weight)

    average: Average[Network] = Average(module, multi_avg_fn=move, use_buffers=True)
    average.n_averaged += 1  # it holds the initialisation, which the first update must not replace
    return average.eval().requires_grad_(False)


def averaged_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the averaged network, from that of its `Average`."""
    prefix = "module."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
