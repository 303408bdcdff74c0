"""Steps at which the loss or the gradient spikes are skipped, in every training."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from pipeline.training.loop import Diverged, RunDirCheckpoints, SpikeGuard
from pipeline.training.loop.divergence import LONGEST, WARM
from tests.images import image_batches
from tests.interruption import fit, straight_and_resumed, weight_bytes
from tests.training.test_classifier import classifier_task
from tests.training.test_tokenizer import tokenizer_task
from tests.transformer_task import transformer_task


@pytest.fixture
def guard() -> SpikeGuard:
    """After its first steps, with a factor of 3 and means of 2 and 1."""
    guard = SpikeGuard(3.0, "training.spike_factor")
    for step in range(WARM):
        assert not guard.skips(step, {"loss": 2.0, "gradient_norm": 1.0})
    return guard


def test_a_value_over_the_factor_of_its_mean_is_a_spike(guard, capsys):
    assert not guard.skips(100, {"loss": 6.0, "gradient_norm": 1.0})
    mean = guard.means["loss"]
    assert mean == pytest.approx(2 + 0.01 * 4)
    assert guard.skips(101, {"loss": 6.5, "gradient_norm": 1.0})
    assert guard.skips(102, {"loss": 2.0, "gradient_norm": 3.1})
    assert guard.means["loss"] == mean and guard.skipped == 2
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("step 102 skipped: loss 6.5 is over 3 times its mean")
    assert "gradient_norm 3.1" in said[1] and "(2 in all)" in said[1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("key", ["loss", "gradient_norm"])
def test_what_is_not_finite_is_a_spike_and_does_not_reach_the_mean(guard, key, value):
    assert guard.skips(100, {"loss": 2.0, "gradient_norm": 1.0, key: value})
    assert guard.means == pytest.approx({"loss": 2.0, "gradient_norm": 1.0})


def test_the_first_steps_are_never_skipped():
    guard = SpikeGuard(2.0, "training.spike_factor")
    losses = [100.0 if step % 10 == 9 else 1.0 for step in range(WARM)]
    assert not any(guard.skips(step, {"loss": loss}) for step, loss in enumerate(losses))
    assert guard.means["loss"] == pytest.approx(sum(losses) / WARM, rel=0.05)


def test_a_loss_that_stays_high_ends_the_training(guard):
    for step in range(LONGEST):
        assert guard.skips(WARM + step, {"loss": 50.0, "gradient_norm": 1.0})
    with pytest.raises(Diverged, match=rf"21 steps in a row, up to step {WARM + LONGEST + 1}"):
        guard.skips(WARM + LONGEST, {"loss": 50.0, "gradient_norm": 1.0})


@pytest.fixture(params=["transformer", "tokenizer", "classifier"])
def make_task(request, tiny, make_params, tokens_dir, monkeypatch) -> Callable:
    """Makes a task, guarded by a factor or not, in which step `at` spikes."""
    monkeypatch.setattr("pipeline.training.loop.divergence.WARM", 3)
    factors = {"transformer": 3.0, "tokenizer": 4.0, "classifier": 1.5}

    def transformer(at: int | None, factor: float | None):
        task = transformer_task(tiny(spike_factor=factor, grad_clip=None), tokens_dir)
        loss = task._loss
        task._loss = lambda *part: loss(*part) * (100 if task.warmup.last_epoch == at else 1)
        return task

    def tokenizer(at: int | None, factor: float | None):
        steps: list[int] = []
        options = {"adversarial_start": 1, "r1_every": 1, "lr": 1e-6, "revive_after": 99}
        task = tokenizer_task(
            make_params,
            lambda step: steps.append(step) or image_batches(step),
            spike_factor=factor,
            **options,
        )
        distance = task.perceptual
        task.perceptual = lambda *pair: distance(*pair) * (100 if steps[-1] == at else 1)
        return task

    def classifier(at: int | None, factor: float | None):
        """Its pictures are even, but for those of one step."""

        def batches(step):
            images, labels = image_batches(step)
            return images if step == at else images * 0 + 120 + step % 3, labels

        own = {"steps": 20, "lr": 1e-6, "bf16": False, "spike_factor": factor}
        return classifier_task(make_params, batches, **own)

    made, factor = locals()[request.param], factors[request.param]
    return lambda at=None, times=1.0: made(at, times and times * factor)


def state_of(task) -> list[bytes | torch.Tensor]:
    """All that a skipped step leaves as it is."""
    names = ("model", "discriminator", "average")
    networks = [getattr(task, name) for name in names if hasattr(task, name)]
    idle = [task.idle.tolist()] if hasattr(task, "idle") else []
    return [*map(weight_bytes, networks), *idle]


@pytest.mark.parametrize("where", ["spike", "gradient", "output"])
def test_a_skipped_step_changes_nothing(make_task, where):
    """A spike, or NaN in a gradient, or in the output of a layer and so in the losses."""
    task = make_task(at=6 if where == "spike" else None)
    for step in range(6):
        task.step(step)
    assert task.guard.skipped == 0
    if hasattr(task, "idle"):
        task.idle.fill_(1000)  # the step would revive all codes
    before = state_of(task)
    first = next(m for m in task.model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    if where == "gradient":
        hook = first.weight.register_hook(lambda gradient: gradient * math.nan)
    elif where == "output":
        hook = first.register_forward_hook(lambda module, inputs, output: output * math.nan)
    losses = task.step(6)
    if where != "spike":
        hook.remove()
    assert state_of(task) == before and task.guard.skipped == 1
    assert bool(losses) == (where != "output") and "gradient_norm" not in losses
    assert all(math.isfinite(loss.item()) for loss in losses.values())
    task.step(7)
    assert all(a != b for a, b in zip(state_of(task), before, strict=True))


def test_without_a_spike_the_guard_changes_nothing(make_task):
    guarded, free = make_task(times=1e6), make_task(times=None)
    for step in range(5):
        assert guarded.step(step).keys() - free.step(step).keys() == {"gradient_norm"}
    assert state_of(guarded) == state_of(free)
    assert "guard" not in free.state_dict()


def test_a_guarded_training_resumes_with_its_means(make_task, tmp_path):
    (straight, history), (resumed, again) = straight_and_resumed(
        lambda: make_task(at=5), tmp_path, steps=8, every=4
    )
    assert again == history and history[-1]["skipped_steps"] == 1
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)


def test_losses_that_are_never_finite_end_the_training(tiny, tokens_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.training.loop.divergence.WARM", 3)
    task = transformer_task(tiny(spike_factor=3.0), tokens_dir)
    loss = task._loss
    task._loss = lambda *part: loss(*part) * (math.nan if task.warmup.last_epoch >= 4 else 1)
    with pytest.raises(Diverged, match="every step after step 4 is nan"):
        fit(task, RunDirCheckpoints(tmp_path), steps=8, every=4)


def test_the_norm_that_is_logged_is_that_of_all_gradients(tiny, tokens_dir):
    task = transformer_task(tiny(spike_factor=3.0, grad_clip=None), tokens_dir)
    logged = task.step(0)["gradient_norm"]
    squares = sum(p.grad.square().sum() for p in task.model.parameters())
    torch.testing.assert_close(logged, squares.sqrt())
