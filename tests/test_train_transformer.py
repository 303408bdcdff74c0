"""The transformer's task: what a step trains."""

import copy
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.config.params import Params
from pipeline.data.tokens import TokenCache
from pipeline.masking import masked_nll
from pipeline.training.transformer import TransformerTask
from pipeline.weights.configs import transformer_config
from tests.images import write_token_cache
from tests.interruption import straight_and_resumed, weight_bytes

CLASSES = 3
CPU = torch.device("cpu")


def tiny_params(make_params, dropout=0.0, **training) -> Params:
    """Parameters of a transformer of one layer over 49 tokens of 16 codes."""
    values = {"steps": 4, "batch_size": 8, "warmup_steps": 2, "checkpoint_every": 2}
    return make_params(
        tokenizer={"codebook_size": 16},
        transformer={"layers": 1, "hidden": 16, "heads": 2, "mlp": 16, "dropout": dropout},
        training=values | {"bf16": False} | training,
    )


def random_tokens(folder: Path) -> Path:
    """A token cache of 20 + 6 images in two shards, 2 views of 49 tokens each."""
    rng = np.random.default_rng(0)
    counts = {"train": [13, 7], "val": [6]}
    return write_token_cache(
        folder,
        {split: [rng.integers(0, 16, (n, 2, 49)) for n in ns] for split, ns in counts.items()},
        {split: rng.integers(0, CLASSES, sum(ns)) for split, ns in counts.items()},
    )


class Call(NamedTuple):
    """What the network was asked for in one step."""

    tokens: Tensor
    mask: Tensor
    labels: Tensor
    where: Tensor


class Spy(nn.Module):
    """In the place of a data-parallel module: passes on what it is called with, and keeps it."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self.calls = module, []

    def forward(self, *args: Tensor) -> Tensor:
        assert self.training
        self.calls.append(args)
        return self.module(*args)


def transformer_task(params, tokens_dir, **options) -> TransformerTask:
    options = {"seed": 3, "device": CPU} | options
    return TransformerTask(params, tokens_dir, CLASSES, **options)


def calls(params, tokens_dir, steps=range(1), **options) -> list[Call]:
    task = transformer_task(params, tokens_dir, wrap=Spy, **options)
    for step in steps:
        task.step(step)
    return [Call(*call) for call in task.parallel.calls]


@pytest.fixture
def tiny(make_params):
    return lambda **changes: tiny_params(make_params, **changes)


@pytest.fixture
def tokens_dir(tmp_path):
    return random_tokens(tmp_path / "tokens")


# --- what a step reads ----------------------------------------------------------------------------


def test_an_epoch_shows_every_image_in_a_random_view_with_its_label(tiny, tokens_dir):
    """20 images in batches of 8: five steps are two epochs."""
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


@pytest.mark.parametrize("step", [0, 1, 2, 7])
def test_workers_share_out_the_batch_of_one(tiny, tokens_dir, step):
    params = tiny(label_drop=0.5)
    (whole,) = calls(params, tokens_dir, [step])
    shares = [calls(params, tokens_dir, [step], rank=r, world_size=2)[0] for r in range(2)]
    for name in ("tokens", "mask", "labels"):
        alone, *shared = (getattr(call, name) for call in (whole, *shares))
        assert torch.equal(alone, torch.cat(shared)), name
    assert whole.tokens.shape == whole.mask.shape == (8, 49) and whole.labels.shape == (8,)
    assert whole.mask.any(dim=1).all()


def test_mean_gradient_of_two_workers_is_that_of_one(tiny, tokens_dir):
    """What data-parallel training averages; dropout and clipping are off."""
    params = tiny(grad_clip=None)
    tasks = [transformer_task(params, tokens_dir)]
    tasks += [transformer_task(params, tokens_dir, rank=r, world_size=2) for r in range(2)]
    losses = [task.step(0)["loss"].item() for task in tasks]
    assert losses[0] == pytest.approx((losses[1] + losses[2]) / 2, rel=1e-5)
    one, *two = ([p.grad for p in task.model.parameters()] for task in tasks)
    for alone, a, b in zip(one, *two, strict=True):
        torch.testing.assert_close(alone, (a + b) / 2, atol=1e-6, rtol=1e-4)


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


@pytest.mark.parametrize(
    ("schedule", "mean"), [("cosine", 2 / math.pi), ("cubic", 3 / 4), ("square_root", 1 / 3)]
)
def test_masks_follow_the_schedule(tiny, tokens_dir, schedule, mean):
    """∫γ(r)dr of the tokens are masked, and half a token more for the rounding up."""
    masks = [call.mask for call in calls(tiny(mask_schedule=schedule), tokens_dir, range(60))]
    ratio = torch.cat(masks).float().mean().item()
    assert ratio == pytest.approx(mean + 0.5 / 49, abs=0.05)  # 3.5 deviations


def test_min_masking_rate_reaches_the_masks(tiny, tokens_dir):
    params = tiny(min_masking_rate=0.5, mask_schedule="logarithmic")
    seen = calls(params, tokens_dir, range(10))
    assert torch.cat([call.mask.sum(dim=1) for call in seen]).min() == math.ceil(0.5 * 49)


# --- what it descends -----------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("loss_on", ["masked", "all"])
def test_loss_is_that_of_the_chosen_positions(tiny, tokens_dir, loss_on, smoothing):
    """However the head's rows are picked and padded."""
    params = tiny(loss_on=loss_on, label_smoothing=smoothing)
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
    tokens_dir = write_token_cache(tmp_path / "fives", fives, labels)
    task = transformer_task(tiny(lr=1e-2, ema_decay=0.5, bf16=bf16), tokens_dir)
    before = task.evaluate(0)["val_nll"]
    for step in range(30):
        task.step(step)
    assert before > 2.5 and task.evaluate(30)["val_nll"] < 0.5


# --- what is kept and measured --------------------------------------------------------------------


def test_interrupted_transformer_ends_with_the_same_bytes(tiny, tokens_dir, tmp_path):
    """In the middle of the warm-up, and with dropout on, which is drawn anew in every step."""

    def task():
        return transformer_task(tiny(dropout=0.1, warmup_steps=3), tokens_dir)

    (straight, history), (resumed, again) = straight_and_resumed(task, tmp_path, steps=4, every=2)
    assert again == history
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)
    assert weight_bytes(resumed.average.module) == weight_bytes(straight.average.module)
    without = transformer_task(tiny(dropout=0.0, warmup_steps=3), tokens_dir)
    for step in range(4):
        without.step(step)
    assert weight_bytes(without.model) != weight_bytes(straight.model)


def test_averaged_weights_are_those_of_all_steps(tiny, tokens_dir):
    task = transformer_task(tiny(ema_decay=0.2), tokens_dir)
    wanted = task.model.vocabulary_bias.detach().clone()
    for step in range(4):
        task.step(step)
        decay = min(0.2, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * task.model.vocabulary_bias.detach()
    torch.testing.assert_close(task.average.module.vocabulary_bias.detach(), wanted)


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


def test_only_the_first_worker_evaluates(tiny, tokens_dir):
    task = transformer_task(
        tiny(), tokens_dir, rank=1, world_size=2, on_evaluate=lambda *args: pytest.fail("called")
    )
    assert task.evaluate(0) == {}


def test_transformer_config_is_the_params(tiny):
    config = transformer_config(tiny(), num_classes=3)
    assert (config.num_tokens, config.codebook_size, config.num_classes) == (49, 16, 3)
    assert (config.layers, config.hidden, config.mask_id) == (1, 16, 19)
