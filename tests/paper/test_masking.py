"""The masks drawn in training, the masked loss and the likelihood."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from pipeline.data.seeds import generator
from pipeline.masking import masked_nll, masked_token_loss, sample_training_mask
from pipeline.schedules import SCHEDULES
from pipeline.transformer import MaskGitTransformer
from tests.paper.test_schedules import gamma
from tests.tiny_networks import inputs, spread


@settings(max_examples=150, deadline=None)
@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    tokens=st.integers(1, 300),
    batch=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    floor=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
)
def test_training_mask_counts(schedule, tokens, batch, seed, floor):
    mask = sample_training_mask(
        batch, tokens, schedule, torch.Generator().manual_seed(seed), min_masking_rate=floor
    )
    assert mask.shape == (batch, tokens) and mask.dtype == torch.bool
    # The rows' r are the generator's first draws.
    r = torch.rand(batch, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for row, progress in zip(mask, r.tolist(), strict=True):
        ratio = max(gamma(schedule, progress, max(tokens, 2)), floor)
        exact = ratio * tokens
        wanted = {math.ceil(exact)}
        if abs(exact - round(exact)) < 1e-9:  # either side of the ceiling's jump is rounding
            wanted |= {round(exact), round(exact) + 1}
        count = int(row.sum())
        assert count in {min(max(w, 1), tokens) for w in wanted}
        assert count >= max(1, math.floor(floor * tokens))


def test_masked_positions_are_uniform():
    rows, tokens = 8000, 10
    mask = sample_training_mask(rows, tokens, "linear", torch.Generator().manual_seed(1))
    by_position = mask.double().mean(dim=0)
    assert (by_position - by_position.mean()).abs().max() < 5 * 0.5 / math.sqrt(rows)
    # Given the count, so are pairs: each of the two-element subsets is drawn equally often.
    pairs = mask[mask.sum(dim=1) == 2]
    together = torch.einsum("bi,bj->ij", pairs.double(), pairs.double()).triu(1)
    counts = together[together > 0]
    assert len(counts) == 45 and chisquare(counts.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_mean_of_each_sample_then_of_the_batch(smoothing):
    draw = torch.Generator().manual_seed(2)
    batch_size, tokens, vocabulary = 4, 6, 11
    logits = 2 * torch.randn(batch_size, tokens, vocabulary, generator=draw)
    target = torch.randint(vocabulary - 3, (batch_size, tokens), generator=draw)
    mask = torch.tensor(
        [[1, 0, 0, 0, 0, 0], [1] * 6, [0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 0, 0]]
    ).bool()
    where = mask.flatten().nonzero()[:, 0]
    loss = masked_token_loss(
        logits.flatten(0, 1)[where], target.flatten()[where], where // tokens, batch_size, smoothing
    )

    each = [
        F.cross_entropy(logits[b, mask[b]], target[b, mask[b]], label_smoothing=smoothing).item()
        for b in range(batch_size)
    ]
    assert loss.item() == pytest.approx(sum(each) / batch_size, rel=1e-5)


@pytest.mark.parametrize("schedule", ["linear", "logarithmic"])
def test_nll_is_the_mean_over_an_images_masked_tokens_and_then_over_images(schedule):
    model = spread(MaskGitTransformer)
    tokens, _, labels = inputs(size=8)
    wanted = []
    for number, (chunk, classes) in enumerate(zip(tokens.split(4), labels.split(4), strict=True)):
        noise = generator(5, "nll", number)
        mask = sample_training_mask(4, chunk.shape[1], schedule, noise)
        with torch.no_grad():
            logits = model.predict(chunk, mask, classes).double()
        chosen = logits.log_softmax(-1).gather(-1, chunk[..., None])[..., 0]
        wanted += [-row[hidden].mean() for row, hidden in zip(chosen, mask, strict=True)]
    nll = masked_nll(model, tokens, labels, schedule=schedule, seed=5, batch_size=4)
    assert nll == pytest.approx(float(sum(wanted)) / 8, rel=1e-5)
