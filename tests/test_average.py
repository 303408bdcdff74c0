"""The exponential moving average of the weights that are trained."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.training.loop import Average, averaged_weights, load_checkpoint, save_checkpoint
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


def test_buffers_are_averaged_as_the_weights_are():
    module = nn.Module()
    module.register_buffer("seen", torch.zeros(3))
    average = Average(module, decay=0.5)
    module.seen += 8
    average.update_parameters(module)
    torch.testing.assert_close(average.module.seen, torch.full((3,), 0.9 * 8))


def test_what_is_averaged_is_for_evaluation_only():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    average = Average(module, decay=0.5)
    assert not any(m.training for m in average.modules())
    assert not any(p.requires_grad for p in average.parameters())
    assert module.training and all(p.requires_grad for p in module.parameters())


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


def test_the_modules_own_weights_come_out_of_its_state():
    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    average = Average(module, 0.9)
    trained(module, average, range(2))
    weights = averaged_weights(average.state_dict())
    assert list(weights) == list(module.state_dict())
    assert weight_bytes(weights) == weight_bytes(average.module)
    module.load_state_dict(weights)


def test_the_number_of_updates_is_never_read_from_the_device():
    """That would wait for all that is queued there, at every step; the meta device has nothing to
    read, and so would raise."""
    module = nn.Linear(2, 2, device="meta")
    average = Average(module, 0.9)
    for _ in range(3):
        average.update_parameters(module)
    assert average.module.weight.is_meta
    assert average.n_averaged.device.type == "cpu" and average.n_averaged == 4
