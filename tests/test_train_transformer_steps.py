"""The loss that a step of the transformer's training descends, and how it descends it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.weights.configs import transformer_config
from tests.images import write_token_cache
from tests.transformer_task import CLASSES, Spy, calls, transformer_task


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("loss_on", ["masked", "all"])
def test_loss_is_that_of_the_chosen_positions(tiny, tokens_dir, loss_on, smoothing):
    """However the head's rows are picked and padded."""
    params = tiny(loss_on=loss_on, label_smoothing=smoothing, other_label_smoothings=[])
    task = transformer_task(params, tokens_dir, wrap=Spy)
    model = copy.deepcopy(task.model)
    loss = task.step(0)["loss"].item()
    tokens, mask, labels, _ = task.parallel.calls[0]
    with torch.no_grad():
        logits = model.logits(model.encode(model.sequence(tokens, mask, labels))[:, 1:])
    chosen = mask if loss_on == "masked" else torch.ones_like(mask)
    wanted = [
        nn.functional.cross_entropy(
            logits[b][chosen[b]], tokens[b][chosen[b]], label_smoothing=smoothing
        )
        for b in range(8)
    ]
    assert loss == pytest.approx(torch.stack(wanted).mean().item(), rel=1e-5)


def test_the_head_gets_rows_of_one_shape(tiny, tokens_dir):
    """However many tokens are masked, since kernels are kept for every shape."""
    seen = calls(tiny(), tokens_dir, range(5))
    assert len({call.mask.sum().item() for call in seen}) == 5
    assert len({len(call.where) for call in seen}) == 1


def test_gradients_are_clipped_by_their_global_norm(tiny, tokens_dir):
    def gradient(grad_clip):
        task = transformer_task(tiny(grad_clip=grad_clip), tokens_dir)
        task.step(0)
        return torch.cat([p.grad.flatten() for p in task.model.parameters()])

    free = gradient(None)
    norm = free.norm().item()
    assert norm > 0.1
    torch.testing.assert_close(gradient(norm / 4), free / 4, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(gradient(norm * 4), free)


def test_dropout_is_on_in_training_where_it_is_asked_for(tiny, tokens_dir):
    def loss(dropout: float, noise: int) -> float:
        task = transformer_task(tiny(dropout=dropout), tokens_dir)
        torch.manual_seed(noise)
        return task.step(0)["loss"].item()

    assert loss(0.1, noise=0) == loss(0.1, noise=0) != loss(0.1, noise=1)
    assert loss(0.0, noise=0) == loss(0.0, noise=1)


def test_warm_up_weight_decay_and_betas(tiny, tokens_dir):
    params = tiny(warmup_steps=4, lr=1e-3)
    task = transformer_task(params, tokens_dir)
    rates = []
    for step in range(6):
        rates.append(task.optimizer.param_groups[0]["lr"])
        task.step(step)
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3, 1e-3])
    decayed, others = task.optimizer.param_groups
    assert decayed["weight_decay"] == 4.5e-2 and others["weight_decay"] == 0
    assert all(p.ndim >= 2 for p in decayed["params"]) and len(others["params"]) > 0
    assert decayed["betas"] == (0.9, 0.96)
    count = len(decayed["params"]) + len(others["params"])
    assert count == len(list(task.model.parameters()))


@pytest.mark.parametrize("bf16", [False, True])
def test_transformer_learns_constant_tokens(tiny, tmp_path, bf16):
    fives = {split: [np.full((20, 2, 49), 5)] for split in ("train", "val")}
    labels = {split: np.arange(20) % CLASSES for split in fives}
    tokens_dir = write_token_cache(tmp_path / "fives", fives, labels, codes=16)
    task = transformer_task(tiny(lr=1e-2, ema_decay=0.5, bf16=bf16), tokens_dir)
    before = task.evaluate(0)["val_nll"]
    for step in range(30):
        task.step(step)
    assert before > 2.5 and task.evaluate(30)["val_nll"] < 0.5


def test_transformer_config_is_the_params(tiny):
    config = transformer_config(tiny(), num_classes=3)
    assert (config.num_tokens, config.codebook_size, config.num_classes) == (49, 16, 3)
    assert (config.layers, config.hidden, config.mask_id) == (1, 16, 19)
