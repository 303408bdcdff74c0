"""Parallel decoding against the authors' numbers, a plain re-implementation, and its invariants."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import decoding
from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.decoding import (
    DecodingSettings,
    decode,
    gumbel_noise,
    mask_by_confidence,
    num_tokens_to_mask,
    sample_categorical,
)
from pipeline.runtime.errors import UserError
from pipeline.sampling import sampler
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
        now = num_tokens_to_mask(schedule, step, 8, torch.tensor([256]), now)
        counts.append(now.item())
    assert counts == still_masked


def ceil(value: float) -> int:
    """Of a number in floating point: 12·cos(π/3) is 6.000000000000001 there."""
    return math.ceil(round(value, 9))


def floor(value: float) -> int:
    """Of a number in floating point: 36·(1 − 5/6) is 5.999999999999999 there."""
    return math.floor(round(value, 9))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rounding", ["floor", "ceil"])
def test_number_masked_is_the_formula(schedule, rounding):
    """⌊γ(t/T)·N⌋ as in the release, or the paper's ⌈γ(t/T)·N⌉ (section 3.2); of what is still
    masked one is predicted at least, and one stays."""
    rounded, sizes = {"floor": floor, "ceil": ceil}[rounding], [1, 2, 10, 36, 49, 100, 256]
    for iterations in (1, 3, 6, 8, 10, 12):
        start = now = torch.tensor(sizes)
        for t in range(1, iterations + 1):
            wanted = []
            for tokens, left in zip(sizes, now.tolist(), strict=True):
                formula = rounded(tokens * gamma(schedule, t / iterations, max(tokens, 2)))
                wanted.append(max(1, min(left - 1, formula)))
            now = num_tokens_to_mask(schedule, t - 1, iterations, start, now, rounding)
            assert now.tolist() == wanted, (iterations, t)


def test_mask_by_confidence_is_strict_and_spares_infinite():
    confidence = torch.tensor([[0.3, 0.1, torch.inf, 0.2], [torch.inf] * 4, [0.5, 0.5, 0.5, 0.9]])
    masked = mask_by_confidence(confidence, torch.tensor([2, 1, 3]))
    assert masked.tolist() == [
        [False, True, False, True],
        [False] * 4,
        [True, True, True, False],
    ]
    tied = mask_by_confidence(torch.tensor([[0.1, 0.2, 0.2]]), torch.tensor([2]))
    assert tied.tolist() == [[True, False, False]]  # what equals the cut-off stays


def reference_decode(predict, tokens, unknown, settings, noises):
    """paper-notes, "One decoding step", with numpy scalars, sorted() and loops."""
    iterations, schedule = settings.iterations, settings.schedule
    rounded = {"floor": floor, "ceil": ceil}[settings.rounding]
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
            scheduled = rounded(at_start[b] * gamma(schedule, ratio, max(at_start[b], 2)))
            mask_len = max(1, min(now - 1, scheduled))
            cut_off = sorted(confidence)[mask_len]
            still_masked[b] = [c < cut_off for c in confidence]
        tokens, unknown = sample, still_masked
        history.append((sample.copy(), still_masked.copy()))
    return history


@pytest.mark.parametrize("schedule", ["cosine", "linear", "exponential", "logarithmic"])
@pytest.mark.parametrize(
    ("temperature", "rounding"), [(0.0, "floor"), (4.5, "floor"), (4.5, "ceil")]
)
def test_decode_matches_a_plain_reimplementation(monkeypatch, schedule, temperature, rounding):
    batch, length, codes, iterations = 5, 13, 7, 6
    rng = np.random.default_rng(len(schedule))
    by_token = rng.normal(size=(codes + 30, length, codes)).astype(np.float32)
    at_mask = rng.normal(size=(length, codes)).astype(np.float32)

    def predict(tokens, unknown):
        """Any function of what is known: here each position sees its left neighbour."""
        left, left_unknown = np.roll(tokens, 1, axis=1), np.roll(unknown, 1, axis=1)
        seen = by_token[left, np.arange(length)]
        return np.where(left_unknown[..., None], at_mask, seen) * 2

    def predict_torch(tokens, unknown):
        return torch.from_numpy(predict(tokens.numpy(), unknown.numpy()))

    tokens = rng.integers(0, codes + 30, (batch, length))  # known ones may lie outside the codes
    unknown = rng.random((batch, length)) < np.array([0.0, 0.2, 0.5, 0.8, 1.0])[:, None]
    noises = []

    def recorded(shape, generator, device):
        noises.append(rng.gumbel(size=tuple(shape)).astype(np.float32))
        return torch.from_numpy(noises[-1])

    monkeypatch.setattr(decoding, "gumbel_noise", recorded)
    how = DecodingSettings(iterations, schedule, temperature, rounding=rounding)
    steps = decode(
        predict_torch, torch.from_numpy(tokens), torch.from_numpy(unknown), how, seeded(0)
    )
    reference = reference_decode(predict, tokens, unknown, how, iter(noises))
    assert len(steps) == iterations
    for step, (sampled, masked) in zip(steps, reference, strict=True):
        np.testing.assert_array_equal(step.sampled.numpy(), sampled)
        np.testing.assert_array_equal(step.masked.numpy(), masked)


@st.composite
def canvases(draw):
    batch, length = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    codes = draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=batch, max_size=batch))
    unknown = rng.random((batch, length)) < np.array(share)[:, None]
    return {
        "tokens": torch.from_numpy(rng.integers(0, 2 * codes, (batch, length))),
        "unknown": torch.from_numpy(unknown),
        "logits": torch.from_numpy(3 * rng.normal(size=(batch, length, codes))).float(),
    }


@settings(max_examples=60, deadline=None)
@given(
    canvas=canvases(),
    iterations=st.integers(1, 15),
    schedule=st.sampled_from(sorted(SCHEDULES)),
    temperature=st.sampled_from([0.0, 4.5, 100.0]),
    seed=st.integers(0, 2**32),
)
def test_decode_invariants(canvas, iterations, schedule, temperature, seed):
    tokens, unknown, logits = canvas["tokens"], canvas["unknown"], canvas["logits"]
    seen = []

    def predict(now, mask):
        seen.append(mask.clone())
        return logits

    how = DecodingSettings(iterations, schedule, temperature)
    steps = decode(predict, tokens, unknown, how, seeded(seed))
    assert len(steps) == iterations
    at_start, before, previous = unknown.sum(dim=1), unknown, tokens
    for i, step in enumerate(steps):
        assert torch.equal(seen[i], before)  # the model is asked with the mask as it stands
        assert torch.equal(step.sampled[~before], previous[~before])  # known tokens stay
        assert (step.sampled[before] < logits.shape[-1]).all()  # what was unknown is now a code
        assert not (step.masked & ~before).any()  # a known token is never masked again
        wanted = num_tokens_to_mask(schedule, i, iterations, at_start, before.sum(dim=1))
        wanted = torch.minimum(wanted, before.sum(dim=1))
        wanted = wanted.clamp(max=tokens.shape[1] - 1)  # a grid of one token has nothing to sort
        assert torch.equal(step.masked.sum(dim=1), wanted)
        before, previous = step.masked, step.sampled
    assert torch.equal(steps[-1].sampled[~unknown], tokens[~unknown])


def test_gumbel_moments():
    noise = gumbel_noise(torch.Size([200_000]), seeded(0), torch.device("cpu"))
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.57722, abs=0.015)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.04)


def test_sample_categorical_frequencies():
    logits = torch.tensor([2.0, 0.5, -1.0, -8.0])
    draws = 60_000
    sampled = sample_categorical(logits.expand(draws, 4), seeded(1))
    frequency = np.bincount(sampled.numpy(), minlength=4) / draws
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum()
    assert (np.abs(frequency - p) < 5 * np.sqrt(p * (1 - p) / draws) + 1e-4).all()


@pytest.mark.parametrize("bad_step", range(3))
def test_one_bad_step_is_enough_but_logits_of_known_tokens_do_not_matter(bad_step):
    masks = []

    def predict(tokens, mask):
        masks.append(mask)
        logits = torch.zeros(2, 9, 5).masked_fill(~mask[..., None], torch.nan)
        if len(masks) == bad_step + 1:
            logits[1, mask[1].nonzero()[0, 0], 2] = value
        return logits

    tokens, unknown = torch.zeros(2, 9, dtype=torch.long), torch.ones(2, 9, dtype=torch.bool)
    for value in (0.0, torch.nan):
        masks.clear()
        with pytest.raises(UserError, match="NaN or infinite") if value else nullcontext():
            decode(predict, tokens, unknown, DecodingSettings(3, "cosine", 4.5), seeded(0))


@pytest.mark.parametrize("network", [MaskGitTransformer, AutoregressiveTransformer])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_no_sample(network, value):
    how, model = DecodingSettings(3, "cosine", 4.5), spread(network)
    model.blocks[0].mlp_in.weight.flatten()[0] = value
    with pytest.raises(UserError, match="NaN or infinite"):
        sampler(model, how)(torch.tensor([0, 1]), 0)
