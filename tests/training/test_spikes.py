"""Steps at which the loss or the gradient spikes are skipped, in every training."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from pipeline.data.ranks import Ranks
from pipeline.training.loop.checkpoints import RunDirCheckpoints
from pipeline.training.loop.divergence import LONGEST, WARM, Diverged, SpikeGuard
from tests.images import image_batches
from tests.interruption import Killed, KilledAfter, fit, weight_bytes
from tests.training.test_classifier import classifier_task
from tests.training.test_tokenizer import tokenizer_task
from tests.transformer_task import transformer_task


def test_a_value_over_the_factor_of_its_mean_or_not_finite_is_a_spike(capsys):
    guard = SpikeGuard(3.0, "training.spike_factor")
    for step in range(WARM):  # the first steps are never skipped
        assert not guard.skips(step, {"loss": 11.0 if step % 10 == 9 else 1.0, "norm": 1.0})
    assert guard.means == pytest.approx({"loss": 2.0, "norm": 1.0}, rel=0.05)
    guard.means = {"loss": 2.0, "norm": 1.0}
    assert not guard.skips(100, {"loss": 6.0, "norm": 1.0})
    means = dict(guard.means)
    assert means == pytest.approx({"loss": 2 + 0.01 * 4, "norm": 1.0})
    spikes = [(6.5, 1.0), (2.0, 3.1), (math.nan, 1.0), (2.0, math.inf)]
    assert all(guard.skips(101, {"loss": loss, "norm": norm}) for loss, norm in spikes)
    assert guard.means == means and guard.skipped == len(spikes)
    assert capsys.readouterr().out.startswith("step 102 skipped: loss 6.5 is over 3 times its mean")
    for step in range(LONGEST - len(spikes)):
        assert guard.skips(200 + step, {"loss": 50.0, "norm": 1.0})
    with pytest.raises(Diverged, match=rf"{LONGEST + 1} steps in a row, up to step 301"):
        guard.skips(300, {"loss": 50.0, "norm": 1.0})


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


def test_a_step_that_is_not_finite_on_another_worker_is_skipped(make_task):
    class OneOfTwo(Ranks):
        def total(self, values):
            return values * math.nan

    task = make_task()
    for step in range(6):
        task.step(step)
    task.ranks = OneOfTwo()
    assert task.step(6) == {} and task.guard.skipped == 1


def test_without_a_spike_the_guard_changes_nothing(make_task):
    guarded, free = make_task(times=1e6), make_task(times=None)
    for step in range(5):
        assert guarded.step(step).keys() - free.step(step).keys() == {"gradient_norm"}
    assert state_of(guarded) == state_of(free)
    assert "guard" not in free.state_dict()


def test_a_guarded_training_resumes_with_its_means(make_task, tmp_path):
    straight, killed, resumed = (make_task(at=5) for _ in range(3))
    history = fit(straight, RunDirCheckpoints(tmp_path / "straight"), steps=8, every=4)
    with pytest.raises(Killed):
        fit(killed, KilledAfter(tmp_path / "killed", 1), steps=8, every=4)
    assert fit(resumed, RunDirCheckpoints(tmp_path / "killed"), steps=8, every=4) == history
    assert history[-1]["skipped_steps"] == 1
    assert state_of(resumed) == state_of(straight)


def test_the_logged_norm_is_of_all_gradients_and_losses_that_are_never_finite_end_the_training(
    tiny, tokens_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr("pipeline.training.loop.divergence.WARM", 3)
    task = transformer_task(tiny(spike_factor=3.0, grad_clip=None), tokens_dir)
    logged = task.step(0)["gradient_norm"]
    squares = sum(p.grad.square().sum() for p in task.model.parameters())
    torch.testing.assert_close(logged, squares.sqrt())
    loss = task._loss
    task._loss = lambda *part: loss(*part) * (math.nan if task.warmup.last_epoch >= 5 else 1)
    with pytest.raises(Diverged, match="every step after step 4 is nan"):
        fit(task, RunDirCheckpoints(tmp_path), steps=8, every=4)
