"""Keeps a moving average of a network's weights. Stages save the averaged network as the model."""

from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Network = TypeVar("Network", bound=nn.Module)


class Average(AveragedModel, Generic[Network]):
    """The moving average of a network's weights and buffers; `module` is the averaged network.

    Args:
        decay: maximum decay. The decay of a step is min(decay, (1 + step) / (10 + step)), so that
            the average of a short run does not stay near the random initialisation.
    """

    module: Network

    def __init__(self, module: Network, decay: float):
        super().__init__(module)
        self.decay = decay
        # The average starts at the initialisation; with n = 0, the first update would replace it.
        self.n_averaged += 1
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average after a training step. Unlike PyTorch's method, this method does not
        copy a step counter to the GPU, so it does not wait for the GPU at every step."""
        step = int(self.n_averaged) - 1
        average = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        own, new = ([*each.parameters(), *each.buffers()] for each in (self.module, model))
        average(own, new, step)
        self.n_averaged += 1


def averaged_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state dict of an `Average` to the state dict of the averaged network."""
    prefix = "module."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
