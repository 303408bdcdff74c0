"""Which images, labels and masks a step of the transformer's training shows to the network."""

import math

import numpy as np
import pytest
import torch

from pipeline.data.ranks import Ranks
from pipeline.data.tokens import TokenCache
from tests.transformer_task import calls, transformer_task


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
    shares = [calls(params, tokens_dir, [step], ranks=Ranks(r, 2))[0] for r in range(2)]
    for name in ("tokens", "mask", "labels"):
        alone, *shared = (getattr(call, name) for call in (whole, *shares))
        assert torch.equal(alone, torch.cat(shared)), name
    assert whole.tokens.shape == whole.mask.shape == (8, 49) and whole.labels.shape == (8,)
    assert whole.mask.any(dim=1).all()


def test_mean_gradient_of_two_workers_is_that_of_one(tiny, tokens_dir):
    """What data-parallel training averages; dropout and clipping are off."""
    params = tiny(grad_clip=None)
    tasks = [transformer_task(params, tokens_dir)]
    tasks += [transformer_task(params, tokens_dir, ranks=Ranks(r, 2)) for r in range(2)]
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
