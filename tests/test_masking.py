"""Mask schedules against closed forms and the authors' numbers; training masks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import paper
from pipeline.masking import sample_training_mask
from pipeline.schedules import SCHEDULES, mask_ratio
from tests.release import expected, needs_fixture

CLOSED_FORMS = {
    "exponential": lambda r, n: 1 - 2 ** (-math.log2(n) * (1 - r)),
    "cubic": lambda r, n: 1 - r**3,
    "square": lambda r, n: 1 - r**2,
    "cosine": lambda r, n: math.cos(math.pi * r / 2),
    "arccos": lambda r, n: 2 / math.pi * math.acos(r),
    "linear": lambda r, n: 1 - r,
    "square_root": lambda r, n: 1 - math.sqrt(r),
    "logarithmic": lambda r, n: math.inf if r == 0 else -math.log2(r) / math.log2(n),
}
RELEASE_NAMES = {
    "linear": "uniform",
    "cosine": "cosine",
    "square": "pow2",
    "cubic": "pow3",
    "square_root": "pow0.5",
    "logarithmic": "log",
    "exponential": "exp",
}


def gamma(schedule: str, r: float, n: int) -> float:
    return min(max(CLOSED_FORMS[schedule](r, n), 1e-6), 1.0)


def test_every_schedule_has_a_closed_form_here():
    assert set(SCHEDULES) == set(CLOSED_FORMS)
    assert set(paper.TABLE_3) == set(RELEASE_NAMES)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("tokens", [2, 49, 256, 1024])
def test_closed_form_and_monotone(schedule, tokens):
    r = np.linspace(0, 1, 101)
    ratio = mask_ratio(schedule, torch.from_numpy(r), tokens).numpy()
    reference = [gamma(schedule, float(x), tokens) for x in r]
    np.testing.assert_allclose(ratio, reference, atol=1e-9, rtol=0)
    assert (np.diff(ratio) <= 0).all()
    assert ratio[-1] == pytest.approx(1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_everything_is_masked_at_the_start(schedule):
    start = mask_ratio(schedule, 0.0, 256).item()
    # The exponential schedule's own value at 0 is 1 - 1/N: all tokens but one.
    assert start == (1 - 1 / 256 if schedule == "exponential" else 1.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_token_is_defined(schedule):
    ratio = mask_ratio(schedule, torch.tensor([0.0, 0.3, 1.0]), torch.tensor([1, 1, 1]))
    assert ratio.isfinite().all() and (ratio > 0).all()


@needs_fixture
@pytest.mark.parametrize(("schedule", "released"), RELEASE_NAMES.items())
def test_schedule_matches_the_release(schedule, released):
    arrays = expected()
    ratio = mask_ratio(schedule, torch.from_numpy(arrays["ratio"]), 256).numpy()
    np.testing.assert_allclose(ratio, arrays[f"schedule_{released}"], atol=1e-6, rtol=0)


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
