"""Spikes of the loss or the gradient are left out, and a run with the guard can be resumed."""

import math

import pytest
import torch
from torch import nn

from pipeline.training.loop import Diverged, RunDirSession
from pipeline.training.loop.spikes import PATIENCE, WARM, SpikeGuard
from pipeline.training.transformer import TransformerTask
from tests.images import image_batches
from tests.interruption import fit, straight_and_resumed, weight_bytes
from tests.test_train_classifier import classifier_task
from tests.test_train_tokenizer import tokenizer_task
from tests.transformer_task import transformer_task


def warmed(factor: float = 3.0, loss: float = 2.0) -> SpikeGuard:
    guard = SpikeGuard(factor, "training.spike_factor")
    for step in range(WARM):
        assert not guard.skips(step, {"loss": loss, "gradient_norm": 1.0})
    return guard


def test_a_value_over_the_factor_of_its_mean_is_a_spike(capsys):
    guard = warmed()
    assert not guard.skips(100, {"loss": 6.0, "gradient_norm": 1.0})
    assert guard.skips(101, {"loss": 6.5, "gradient_norm": 1.0})
    assert guard.skips(102, {"loss": 2.0, "gradient_norm": 3.1})
    assert not guard.skips(103, {"loss": 2.0, "gradient_norm": 1.0})
    assert guard.skipped == 2
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("step 102 skipped: loss 6.5 is over 3 times its mean")
    assert "gradient_norm 3.1" in said[1] and "(2 in all)" in said[1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("key", ["loss", "gradient_norm"])
def test_what_is_not_finite_is_a_spike_and_does_not_reach_the_mean(key, value, capsys):
    guard = warmed()
    assert guard.skips(100, {"loss": 2.0, "gradient_norm": 1.0, key: value})
    assert f"{key} {value} is not finite" in capsys.readouterr().out
    assert guard.means == pytest.approx({"loss": 2.0, "gradient_norm": 1.0})
    assert not guard.skips(101, {"loss": 2.0, "gradient_norm": 1.0})


def test_a_spike_does_not_move_the_mean_and_taken_steps_do():
    guard = warmed()
    guard.skips(100, {"loss": 1000.0, "gradient_norm": 1.0})
    assert guard.means["loss"] == pytest.approx(2)
    guard.skips(101, {"loss": 4.0, "gradient_norm": 1.0})
    assert guard.means["loss"] == pytest.approx(2 + 0.01 * 2)


def test_the_first_steps_are_only_looked_at():
    guard = SpikeGuard(2.0, "training.spike_factor")
    losses = [100.0 if step % 10 == 9 else 1.0 for step in range(WARM)]
    assert not any(guard.skips(step, {"loss": loss}) for step, loss in enumerate(losses))
    assert guard.means["loss"] == pytest.approx(sum(losses) / WARM, rel=0.05)


def test_a_loss_that_stays_high_is_no_spike_but_ends_the_run():
    guard = warmed()
    for step in range(PATIENCE):
        assert guard.skips(WARM + step, {"loss": 50.0, "gradient_norm": 1.0})
    with pytest.raises(Diverged, match=rf"21 steps in a row, up to step {WARM + PATIENCE + 1}"):
        guard.skips(WARM + PATIENCE, {"loss": 50.0, "gradient_norm": 1.0})


def spiking(tiny, tokens_dir, at: int | None, monkeypatch, factor=3.0) -> TransformerTask:
    """A tiny transformer's task whose loss is 100 times as large in one step."""
    monkeypatch.setattr("pipeline.training.loop.spikes.WARM", 3)
    task = transformer_task(tiny(spike_factor=factor, grad_clip=None), tokens_dir)
    steps, inputs, loss = [], task._inputs, task._loss
    task._inputs = lambda step: steps.append(step) or inputs(step)
    task._loss = lambda *part: loss(*part) * (100 if steps[-1] == at else 1)
    return task


def test_a_spike_leaves_the_weights_as_they_are(tiny, tokens_dir, monkeypatch):
    task = spiking(tiny, tokens_dir, 5, monkeypatch)
    for step in range(5):
        task.step(step)
    before, averaged = weight_bytes(task.model), weight_bytes(task.average.module)
    losses = task.step(5)
    assert weight_bytes(task.model) == before and weight_bytes(task.average.module) == averaged
    assert losses.keys() == {"loss"} and task.evaluate(6)["skipped_steps"] == 1
    task.step(6)
    assert weight_bytes(task.model) != before


def test_a_gradient_that_overflows_is_a_spike_that_a_run_survives(
    tiny, tokens_dir, tmp_path, monkeypatch
):
    task = spiking(tiny, tokens_dir, 5, monkeypatch)
    clip = nn.utils.clip_grad_norm_

    def overflowing(parameters, most):
        norm = clip(parameters, most)
        return norm + math.inf if task.warmup.last_epoch == 5 else norm

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", overflowing)
    history = fit(task, RunDirSession(tmp_path), steps=8, every=4)
    assert history[-1]["skipped_steps"] == 1 and math.isfinite(history[-1]["gradient_norm"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_a_spike_that_a_run_survives(
    tiny, tokens_dir, tmp_path, monkeypatch, value
):
    task = spiking(tiny, tokens_dir, None, monkeypatch)
    loss = task._loss
    task._loss = lambda *part: loss(*part) * (value if task.warmup.last_epoch == 5 else 1)
    history = fit(task, RunDirSession(tmp_path), steps=8, every=4)
    assert history[-1]["skipped_steps"] == 1 and math.isfinite(history[-1]["loss"])


def test_losses_that_are_never_finite_end_the_run_at_the_checkpoint(
    tiny, tokens_dir, tmp_path, monkeypatch
):
    task = spiking(tiny, tokens_dir, None, monkeypatch)
    loss = task._loss
    task._loss = lambda *part: loss(*part) * (math.nan if task.warmup.last_epoch >= 4 else 1)
    with pytest.raises(Diverged, match="no step after step 4 had finite losses"):
        fit(task, RunDirSession(tmp_path), steps=8, every=4)


def test_without_a_spike_the_guard_changes_nothing(tiny, tokens_dir, monkeypatch):
    """Neither what is learned nor, without a guard, what is logged and kept."""
    guarded = spiking(tiny, tokens_dir, None, monkeypatch, factor=100.0)
    free = transformer_task(tiny(grad_clip=None), tokens_dir)
    for step in range(6):
        guarded.step(step)
        assert free.step(step).keys() == {"loss"}
    assert weight_bytes(guarded.model) == weight_bytes(free.model)
    assert "guard" not in free.state_dict() and "skipped_steps" not in free.evaluate(6)


def test_the_norm_that_is_logged_is_that_of_all_gradients(tiny, tokens_dir):
    task = transformer_task(tiny(spike_factor=3.0, grad_clip=None), tokens_dir)
    logged = task.step(0)["gradient_norm"]
    squares = sum(p.grad.square().sum() for p in task.model.parameters())
    torch.testing.assert_close(logged, squares.sqrt())


def test_a_run_with_a_guard_is_taken_up_with_its_means(tiny, tokens_dir, tmp_path, monkeypatch):
    def task():
        return spiking(tiny, tokens_dir, 5, monkeypatch)

    (straight, history), (resumed, again) = straight_and_resumed(task, tmp_path, steps=8, every=4)
    assert again == history and history[-1]["skipped_steps"] == 1
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)


def spiking_tokenizer(make_params, at: int | None, factor: float | None):
    """Whose perceptual distances are 100 times as large in one step; its discriminator is there
    from the second step on, and every step has its share of R1."""
    steps = []
    task = tokenizer_task(
        make_params,
        lambda step: steps.append(step) or image_batches(step),
        **{
            "adversarial_start": 1,
            "r1_every": 1,
            "lr": 1e-6,
            "revive_after": 99,
            "spike_factor": factor,
        },
    )
    distance = task.perceptual
    task.perceptual = lambda *pair: distance(*pair) * (100 if steps[-1] == at else 1)
    return task


def spiking_classifier(make_params, at: int | None, factor: float | None):
    """Whose pictures are even but for those of one step."""

    def batches(step):
        images, labels = image_batches(step)
        return images if step == at else images * 0 + 120 + step % 3, labels

    own = {"steps": 20, "lr": 1e-6, "bf16": False, "spike_factor": factor}
    return classifier_task(make_params, batches, **own)


of_images = pytest.mark.parametrize(
    "make_task, factor", [(spiking_tokenizer, 4.0), (spiking_classifier, 1.5)]
)


@pytest.fixture(autouse=True)
def soon_warm(request, monkeypatch):
    if "make_task" in request.fixturenames:
        monkeypatch.setattr("pipeline.training.loop.spikes.WARM", 3)


@of_images
def test_a_spike_leaves_every_network_of_images_as_it_is(make_params, make_task, factor):
    task = make_task(make_params, 6, factor)
    for step in range(6):
        task.step(step)
    assert task.guard.skipped == 0
    counted = [idle.fill_(1000).clone() for idle in idle_of(task)]
    before = [weight_bytes(network) for network in networks(task)]
    task.step(6)
    assert all(map(torch.equal, idle_of(task), counted))
    assert [weight_bytes(network) for network in networks(task)] == before
    assert task.evaluate(7)["skipped_steps"] == 1
    task.step(7)
    after = [weight_bytes(network) for network in networks(task)]
    assert all(a != b for a, b in zip(after, before, strict=True))


def idle_of(task) -> list[torch.Tensor]:
    """The steps that each code was idle, which revive it."""
    return [task.idle] if hasattr(task, "idle") else []


def networks(task):
    names = ("model", "discriminator", "average")
    return [getattr(task, name) for name in names if hasattr(task, name)]


@of_images
@pytest.mark.parametrize("where", ["gradient", "output"])
def test_what_is_not_finite_leaves_every_network_of_images_as_it_is(
    make_params, make_task, factor, where
):
    """Weights, statistics of a batch norm, and codes, all of which would be revived."""
    task = make_task(make_params, None, factor)
    for step in range(6):
        task.step(step)
    counted = [idle.fill_(1000).clone() for idle in idle_of(task)]
    before = [weight_bytes(network) for network in networks(task)]
    first = next(m for m in task.model.modules() if isinstance(m, nn.Conv2d))
    if where == "gradient":
        hook = first.weight.register_hook(lambda gradient: gradient * math.nan)
    else:
        hook = first.register_forward_hook(lambda module, inputs, output: output * math.nan)
    losses = task.step(6)
    hook.remove()
    assert [weight_bytes(network) for network in networks(task)] == before
    assert all(map(torch.equal, idle_of(task), counted))
    assert bool(losses) == (where == "gradient")
    assert all(math.isfinite(loss.item()) for loss in losses.values())
    task.step(7)
    assert task.guard.skipped == 1


@of_images
def test_without_a_spike_the_guard_changes_no_network_of_images(make_params, make_task, factor):
    guarded, free = (make_task(make_params, None, f) for f in (1e6 * factor, None))
    for step in range(5):
        assert guarded.step(step).keys() - free.step(step).keys() == {"gradient_norm"}
    assert list(map(weight_bytes, networks(guarded))) == list(map(weight_bytes, networks(free)))
    assert "guard" not in free.state_dict() and "skipped_steps" not in free.evaluate(5)


@of_images
def test_a_guard_of_images_is_taken_up_with_its_means(make_params, tmp_path, make_task, factor):
    def task():
        return make_task(make_params, 5, factor)

    (straight, history), (resumed, again) = straight_and_resumed(task, tmp_path, steps=8, every=4)
    assert again == history and history[-1]["skipped_steps"] == 1
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)
