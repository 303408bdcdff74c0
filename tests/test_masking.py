"""The masks that training draws."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.ranks import Ranks
from pipeline.masking import sample_training_mask
from pipeline.schedules import SCHEDULES
from tests.test_schedules import gamma


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


@given(workers=st.integers(1, 7), batch=st.integers(7, 40), floor=st.sampled_from([0.0, 0.5]))
def test_workers_make_the_masks_of_their_rows(workers, batch, floor):
    def draw(**rows):
        noise = torch.Generator().manual_seed(3)
        mask = sample_training_mask(batch, 16, "cosine", noise, floor, **rows)
        return mask, torch.rand(1, generator=noise)

    whole, after = draw()
    shares = [draw(rows=Ranks(rank, workers).rows) for rank in range(workers)]
    assert torch.equal(torch.cat([mask for mask, _ in shares]), whole)
    assert all(torch.equal(later, after) for _, later in shares)  # later draws agree, too


def test_mask_ratio_in_training_follows_the_schedule():
    mask = sample_training_mask(4000, 64, "cosine", torch.Generator().manual_seed(0))
    ratio = mask.double().mean(dim=1)
    # The mean of cos(πr/2) is 2/π; the ceiling adds at most half a token on average.
    assert ratio.mean().item() == pytest.approx(2 / math.pi + 0.5 / 64, abs=0.02)
    assert (ratio > 0.9).double().mean().item() == pytest.approx(0.29, abs=0.03)


def test_masked_positions_are_uniform():
    rows, tokens = 8000, 10
    mask = sample_training_mask(rows, tokens, "linear", torch.Generator().manual_seed(1))
    by_position = mask.double().mean(dim=0)
    assert (by_position - by_position.mean()).abs().max() < 5 * 0.5 / math.sqrt(rows)
    # Given the count, so are pairs: each of the two-element subsets is drawn equally often.
    pairs = mask[mask.sum(dim=1) == 2]
    together = torch.einsum("bi,bj->ij", pairs.double(), pairs.double()).triu(1)
    counts = together[together > 0]
    assert len(counts) == 45
    wanted = len(pairs) / 45
    chi_square = ((counts - wanted) ** 2 / wanted).sum().item()
    assert chi_square < 44 + 5 * math.sqrt(2 * 44)
