"""Parallel decoding against the authors' numbers and a plain re-implementation."""

import math
from contextlib import nullcontext
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.decoding import iterative as decoding
from pipeline.decoding.iterative import decode, num_tokens_to_mask
from pipeline.decoding.settings import DecodingSettings
from pipeline.runtime.errors import UserError
from pipeline.sampling import sample_tokens
from pipeline.schedules import SCHEDULES
from pipeline.transformer import MaskGitTransformer
from tests.paper.test_schedules import gamma
from tests.tiny_networks import seeded, spread


@pytest.mark.parametrize(
    ("schedule", "still_masked"),
    [
        ("cosine", [251, 236, 212, 181, 142, 97, 49, 1]),
        ("exponential", [254, 252, 248, 240, 224, 192, 128, 1]),
        ("logarithmic", [96, 64, 45, 32, 21, 13, 6, 1]),
    ],
)
def test_number_masked_matches_the_release(schedule, still_masked):
    now, counts = torch.tensor([256]), []
    for step in range(8):
        now = num_tokens_to_mask(DecodingSettings(8, schedule, 0), step, torch.tensor([256]), now)
        counts.append(now.item())
    assert counts == still_masked


def rounded(value: float, rounding: str) -> int:
    """Return ⌊x⌋ or ⌈x⌉ of an exact x; 36·(1 − 5/6) would be 5.999999999999999 as a float."""
    return {"floor": math.floor, "ceil": math.ceil}[rounding](round(value, 9))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rounding", ["floor", "ceil"])
def test_number_masked_is_the_formula(schedule, rounding):
    """⌊γ(t/T)·N⌋ as in the authors' code, or the paper's ⌈γ(t/T)·N⌉ (section 3.2). Each iteration
    predicts at least one masked token, and leaves at least one masked."""
    sizes = [1, 2, 10, 36, 49, 100, 256]
    for iterations in (1, 3, 6, 8, 10, 12):
        how = DecodingSettings(iterations, schedule, 0, rounding=rounding)
        start = now = torch.tensor(sizes)
        for t in range(1, iterations + 1):
            wanted = []
            for tokens, left in zip(sizes, now.tolist(), strict=True):
                exact = tokens * gamma(schedule, t / iterations, max(tokens, 2))
                formula = rounded(exact, rounding)
                wanted.append(max(1, min(left - 1, formula)))
            now = num_tokens_to_mask(how, t - 1, start, now)
            assert now.tolist() == wanted, (iterations, t)


def reference_decode(predict, tokens, unknown, settings, noises):
    """Decoding as in section 3.2, with numpy scalars, sorted() and loops."""
    iterations, schedule = settings.iterations, settings.schedule
    batch, length = tokens.shape
    tokens, unknown = tokens.copy(), unknown.copy()
    at_start = [int(sum(row)) for row in unknown]
    history = []
    for step in range(iterations):
        ratio = (step + 1) / iterations
        logits = predict(tokens, unknown)
        token_noise, choice_noise = next(noises), next(noises)
        sample, still_masked = tokens.copy(), np.zeros_like(unknown)
        for b in range(batch):
            confidence = []
            for i in range(length):
                if not unknown[b, i]:
                    confidence.append(math.inf)
                    continue
                scores = logits[b, i] + token_noise[b, i]  # Gumbel-max: a draw from the softmax
                token = max(range(len(scores)), key=lambda k: scores[k])
                sample[b, i] = token
                row = [float(x) for x in logits[b, i]]
                log_p = row[token] - math.log(sum(math.exp(x) for x in row))
                noise = settings.choice_temperature * (1 - ratio) * float(choice_noise[b, i])
                confidence.append(log_p + noise)
            now = int(sum(unknown[b]))
            exact = at_start[b] * gamma(schedule, ratio, max(at_start[b], 2))
            scheduled = rounded(exact, settings.rounding)
            mask_len = min(max(1, min(now - 1, scheduled)), length - 1)
            cut_off = sorted(confidence)[mask_len]
            still_masked[b] = [c < cut_off for c in confidence]
        tokens, unknown = sample, still_masked
        history.append((sample.copy(), still_masked.copy()))
    return history


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    shares=st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]), min_size=1, max_size=5),
    length=st.integers(1, 13),
    how=st.builds(
        DecodingSettings,
        iterations=st.integers(1, 15),
        schedule=st.sampled_from(sorted(SCHEDULES)),
        choice_temperature=st.sampled_from([0.0, 4.5, 100.0]),
        rounding=st.sampled_from(["floor", "ceil"]),
    ),
)
def test_decode_matches_a_plain_reimplementation(seed, shares, length, how):
    batch, codes, rng = len(shares), 7, np.random.default_rng(seed)
    by_token = rng.normal(size=(codes + 30, length, codes)).astype(np.float32)
    at_mask = rng.normal(size=(length, codes)).astype(np.float32)

    def predict(tokens, unknown):
        """A network in which each position sees its left neighbour."""
        left, left_unknown = np.roll(tokens, 1, axis=1), np.roll(unknown, 1, axis=1)
        seen = by_token[left, np.arange(length)]
        return np.where(left_unknown[..., None], at_mask, seen) * 2

    def predict_torch(tokens, unknown, progress):
        return torch.from_numpy(predict(tokens.numpy(), unknown.numpy()))

    tokens = rng.integers(0, codes + 30, (batch, length))  # known ones may lie outside the codes
    unknown = rng.random((batch, length)) < np.array(shares)[:, None]
    noises = []

    def recorded(shape, generator, device):
        noises.append(rng.gumbel(size=tuple(shape)).astype(np.float32))
        return torch.from_numpy(noises[-1])

    with mock.patch.object(decoding, "gumbel_noise", recorded):
        given = (torch.from_numpy(array) for array in (tokens, unknown))
        steps = list(decode(predict_torch, *given, how, seeded(0)))
    reference = reference_decode(predict, tokens, unknown, how, iter(noises))
    assert len(steps) == how.iterations
    for step, (sampled, masked) in zip(steps, reference, strict=True):
        np.testing.assert_array_equal(step.sampled.numpy(), sampled)
        np.testing.assert_array_equal(step.masked.numpy(), masked)


@pytest.mark.parametrize("bad_step", range(3))
def test_one_bad_step_is_enough_but_logits_of_known_tokens_do_not_matter(bad_step):
    masks = []

    def predict(tokens, mask, progress):
        masks.append(mask)
        logits = torch.zeros(2, 9, 5).masked_fill(~mask[..., None], torch.nan)
        if len(masks) == bad_step + 1:
            logits[1, mask[1].nonzero()[0, 0], 2] = value
        return logits

    tokens, unknown = torch.zeros(2, 9, dtype=torch.long), torch.ones(2, 9, dtype=torch.bool)
    for value in (0.0, torch.nan):
        masks.clear()
        with pytest.raises(UserError, match="NaN or infinite") if value else nullcontext():
            list(decode(predict, tokens, unknown, DecodingSettings(3, "cosine", 4.5), seeded(0)))


@pytest.mark.parametrize("network", [MaskGitTransformer, AutoregressiveTransformer])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_no_sample(network, value):
    how, model = DecodingSettings(3, "cosine", 4.5), spread(network)
    model.blocks[0].mlp_in.weight.flatten()[0] = value
    with pytest.raises(UserError, match="NaN or infinite"):
        sample_tokens(model, how, torch.tensor([0, 1]), 0)
