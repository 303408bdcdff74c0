"""The exponential moving average of the weights that are trained."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.training.loop import Average, load_checkpoint, save_checkpoint
from tests.interruption import weight_bytes


def trained(module: nn.Module, average: nn.Module, steps: range) -> None:
    """Stands for an optimizer: each step sets weights of its own."""
    for step in steps:
        noise = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=noise))
        average.update_parameters(module)


def test_it_is_the_closed_form_from_the_initialisation_on():
    """The first steps weigh more: decay min(d, (1 + step) / (10 + step))."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 2.0)
    average, wanted = Average(module, decay=0.3), 2.0
    assert average.module.weight.item() == 2
    for step, value in enumerate([3.0, -1.0, 4.0, 1.0, -5.0]):
        nn.init.constant_(module.weight, value)
        average.update_parameters(module)
        decay = min(0.3, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * value
        assert average.module.weight.item() == pytest.approx(wanted, rel=1e-5)
    assert module.weight.item() == -5  # the module itself is untouched


@pytest.mark.parametrize("at", [0, 1, 4])
def test_taken_up_from_a_checkpoint_it_ends_with_the_same_bytes(tmp_path: Path, at):
    """The number of updates is kept too, on which the weight of the next depends."""
    torch.manual_seed(0)
    first = nn.Linear(3, 2)
    straight, killed = Average(first, 0.9), Average(first, 0.9)
    trained(first, straight, range(9))
    trained(first, killed, range(at))
    save_checkpoint({"average": killed.state_dict()}, tmp_path / "checkpoint.pt")

    fresh = nn.Linear(3, 2)
    resumed = Average(fresh, 0.9)
    resumed.load_state_dict(load_checkpoint(tmp_path / "checkpoint.pt")["average"])
    assert weight_bytes(resumed) == weight_bytes(killed)
    trained(fresh, resumed, range(at, 9))
    assert weight_bytes(resumed) == weight_bytes(straight)
