"""Training of the transformers: the inputs of a step, how the loss falls, and several
workers."""

import copy
import gc
import math
import time
import weakref
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive, token_nll
from pipeline.data.order import Prefetch
from pipeline.data.ranks import Ranks, sum_in_order
from pipeline.data.tokens import TokenCache
from pipeline.masking import masked_nll
from pipeline.training.autoregressive import AutoregressiveTask
from pipeline.training.transformer import TransformerTask
from pipeline.transformer import MaskGitTransformer
from tests.images import write_token_cache
from tests.interruption import weight_bytes
from tests.tiny_networks import inputs, spread
from tests.transformer_task import CLASSES, calls, spied, transformer_task


def test_an_epoch_shows_every_image_in_a_random_view_with_its_label(tiny, tokens_dir):
    """20 images in batches of 8, so that five steps are two epochs."""
    whole, labels = TokenCache(tokens_dir, "train"), {}
    for view in range(2):
        rows = whole.batch(np.arange(20), np.full(20, view))
        for i, (tokens, label) in enumerate(zip(*(x.tolist() for x in rows), strict=True)):
            labels[tuple(tokens)] = i, view, label
    seen = []
    for call in calls(tiny(), tokens_dir, range(40)):
        for tokens, label in zip(call.tokens.tolist(), call.labels.tolist(), strict=True):
            index, view, wanted = labels[tuple(tokens)]
            assert label == wanted
            seen.append((index, view))
    for epoch in range(16):
        assert sorted(i for i, _ in seen[20 * epoch : 20 * (epoch + 1)]) == list(range(20))
    assert 120 < sum(view for _, view in seen) < 200  # of 320, ± 4.5 deviations
    assert len(set(seen)) == 40


@pytest.mark.parametrize(("step", "workers"), [(0, 2), (2, 2), (1, 8)])
def test_workers_share_out_the_batch_of_one(tiny, tokens_dir, step, workers):
    """Dropped labels, which are drawn after the masks, are shared out too."""
    params = tiny(label_drop=0.5, min_masking_rate=0.5)
    (whole,) = calls(params, tokens_dir, [step])
    ranks = [Ranks(rank, workers) for rank in range(workers)]
    shares = [calls(params, tokens_dir, [step], ranks=own)[0] for own in ranks]
    for name in ("tokens", "mask", "labels"):
        alone, *shared = (getattr(call, name) for call in (whole, *shares))
        assert torch.equal(alone, torch.cat(shared)), name
    assert whole.tokens.shape == whole.mask.shape == (8, 49) and whole.labels.shape == (8,)
    assert whole.mask.any(dim=1).all()


def test_batches_and_masks_change_with_step_seed_and_schedule(tiny, tokens_dir):
    (call,) = calls(tiny(), tokens_dir)
    (again,) = calls(tiny(), tokens_dir)
    assert all(torch.equal(a, b) for a, b in zip(call, again, strict=True))
    for options in ({"steps": [1]}, {"seed": 4}):
        (other,) = calls(tiny(), tokens_dir, **options)
        assert not torch.equal(call.tokens, other.tokens)
        assert not torch.equal(call.mask, other.mask)
    (other,) = calls(tiny(mask_schedule="linear"), tokens_dir)
    assert torch.equal(call.tokens, other.tokens) and not torch.equal(call.mask, other.mask)


def test_min_masking_rate_reaches_the_masks(tiny, tokens_dir):
    params = tiny(min_masking_rate=0.5, mask_schedule="logarithmic")
    seen = calls(params, tokens_dir, range(10))
    assert torch.cat([call.mask.sum(dim=1) for call in seen]).min() == math.ceil(0.5 * 49)


@pytest.mark.parametrize(("loss_on", "smoothing"), [("masked", 0.3), ("all", 0.0)])
def test_loss_is_that_of_the_chosen_positions(tiny, tokens_dir, loss_on, smoothing):
    """The loss does not depend on how the head's rows are chosen and padded."""
    params = tiny(loss_on=loss_on, label_smoothing=smoothing, other_label_smoothings=[])
    task = spied(transformer_task(params, tokens_dir))
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


@pytest.mark.parametrize("kind", [TransformerTask, AutoregressiveTask])
def test_dropout_is_on_in_training(tiny, tokens_dir, kind):
    tasks = [transformer_task(tiny(dropout=p), tokens_dir, kind) for p in (0.0, 0.1)]
    assert len({task.step(0)["loss"].item() for task in tasks}) == 2


def test_a_task_ends_with_its_training(tiny, tokens_dir):
    """The task is freed; else a GPU holds two tasks while a process trains its second one."""
    task = transformer_task(tiny(), tokens_dir)
    task._inputs = Prefetch(task._inputs)  # as on a GPU
    task.step(0)
    model = weakref.ref(task.model)
    gc.disable()
    try:
        del task
        deadline = time.monotonic() + 10
        while model() is not None and time.monotonic() < deadline:
            time.sleep(0.01)  # the thread draws the inputs of the step that is next
        assert model() is None
    finally:
        gc.enable()


def test_evaluation_is_of_the_averaged_weights_and_shows_them(tiny, tokens_dir):
    shown = []
    params = tiny(lr=1e-2, ema_decay=0.9)
    task = transformer_task(params, tokens_dir, on_evaluate=lambda *args: shown.append(args))
    for step in range(3):
        task.step(step)
    row = task.evaluate(3)
    ((model, at),) = shown
    assert at == 3 and not model.training
    assert weight_bytes(model) == weight_bytes(task.average.module) != weight_bytes(task.model)
    val = TokenCache(tokens_dir, "val").everything()
    options = {"schedule": "cosine", "seed": 3, "batch_size": 500}
    assert row == {"val_nll": masked_nll(model, *val, **options), "lr": pytest.approx(1e-2)}
    assert row["val_nll"] != masked_nll(copy.deepcopy(task.model).eval(), *val, **options)


def test_only_the_first_worker_shows_what_all_measured(tiny, tokens_dir, monkeypatch):
    shown = []
    tasks = [
        transformer_task(
            tiny(), tokens_dir, ranks=Ranks(rank, 2), on_evaluate=lambda *_: shown.append(1)
        )
        for rank in range(2)
    ]
    monkeypatch.setattr(Ranks, "total", lambda ranks, values: values)
    first, second = (task.evaluate(0) for task in tasks)
    assert first["val_nll"] > 0 and second["val_nll"] == 0  # of the one batch there is
    assert first["lr"] == second["lr"] and shown == [1]


@pytest.mark.parametrize("parts", [2, 8])
@pytest.mark.parametrize("task", [TransformerTask, AutoregressiveTask])
def test_accumulated_loss_and_gradient_are_those_of_the_whole_batch(tiny, tokens_dir, task, parts):
    """Agrees to 1e-6 without dropout, which draws anew for each part."""

    def step(accumulate: int):
        params = tiny(accumulate=accumulate, grad_clip=None)
        trained = transformer_task(params, tokens_dir, task)
        loss = trained.step(0)["loss"]
        return [loss, *(p.grad for p in trained.model.parameters())]

    for mine, wanted in zip(step(parts), step(1), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("workers", [2, 7])
@pytest.mark.parametrize("network", [MaskGitTransformer, AutoregressiveTransformer])
def test_a_likelihood_that_workers_share_is_that_of_one_to_the_last_bit(network, workers):
    (tokens, _, labels), parts = inputs(size=29), []

    class Unconnected(Ranks):
        def total(self, values):
            parts.append(values)
            return values

    masked = partial(masked_nll, schedule="cosine", seed=1)
    measure = masked if network is MaskGitTransformer else token_nll
    likelihood = partial(measure, spread(network), tokens, labels, batch_size=5)
    for rank in range(workers):
        likelihood(ranks=Unconnected(rank, workers))
    assert all((torch.stack(parts) != 0).sum(dim=0) == 1)  # each batch by one worker
    assert sum_in_order(sum(parts)) / len(tokens) == likelihood()


# The autoregressive baseline


def test_baseline_learns_to_count_from_its_class_on(tiny, tmp_path):
    """Token n is (class + n) mod 16, so that the class or the token before predicts it."""
    labels = np.arange(18) % CLASSES
    grids = (labels[:, None, None] + np.arange(49)) % 16
    splits = ("train", "val")
    tokens_dir = write_token_cache(
        tmp_path / "tokens", {s: [grids] for s in splits}, dict.fromkeys(splits, labels), 16
    )
    exact = {"label_smoothing": 0.0, "other_label_smoothings": []}
    task = transformer_task(tiny(lr=1e-2, ema_decay=0.5, **exact), tokens_dir, AutoregressiveTask)
    before = task.evaluate(0)["val_nll"]
    for step in range(50):
        task.step(step)
    assert before == pytest.approx(math.log(16), abs=0.2)
    assert task.evaluate(50)["val_nll"] < 0.1
    drawn = generate_autoregressive(task.average.module, torch.from_numpy(labels), seed=0)
    assert drawn[:, 0].tolist() == labels.tolist()
    assert (drawn.diff(dim=1) % 16 == 1).float().mean() > 0.95


def test_batches_are_maskgits_and_the_loss_is_of_every_token(tiny, tokens_dir):
    """Label smoothing covers the whole vocabulary. Labels are never dropped."""
    params = tiny(label_smoothing=0.3, label_drop=0.9)
    task = spied(transformer_task(params, tokens_dir, AutoregressiveTask))
    initial = SimpleNamespace(**{name: p.clone() for name, p in task.model.state_dict().items()})
    for step, theirs in enumerate(calls(tiny(), tokens_dir, range(4))):
        task.model.load_state_dict(vars(initial))
        loss = task.step(step)["loss"].item()
        tokens, labels = task.parallel.calls[-1]
        assert torch.equal(tokens, theirs.tokens) and torch.equal(labels, theirs.labels)
        task.model.load_state_dict(vars(initial))
        log_prob = task.model(tokens, labels).log_softmax(dim=-1)
        wanted = 0.7 * log_prob.gather(2, tokens[..., None])[..., 0] + 0.3 * log_prob.mean(dim=-1)
        assert loss == pytest.approx(-wanted.mean().item(), rel=1e-5)
