"""The moving average of a network's weights, which stages publish."""

from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Network = TypeVar("Network", bound=nn.Module)


class Average(AveragedModel, Generic[Network]):
    """PyTorch's average of a network's weights and buffers; `module` is the averaged network.

    Args:
        decay: the largest; the first steps weigh more, as min(decay, (1 + step) / (10 + step)), so
            that a short run does not end near its random initialisation.
    """

    module: Network

    def __init__(self, module: Network, decay: float):
        super().__init__(module)
        self.decay = decay
        # It holds the initialisation, which the first update must not replace.
        self.n_averaged += 1
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average after a step. (PyTorch's own method copies its counter to the weights'
        device, and so waits for the device at every step.)"""
        step = int(self.n_averaged) - 1
        average = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        own, new = ([*each.parameters(), *each.buffers()] for each in (self.module, model))
        average(own, new, step)
        self.n_averaged += 1


def averaged_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the averaged network, taken from the state dict of its `Average`."""
    prefix = "module."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
