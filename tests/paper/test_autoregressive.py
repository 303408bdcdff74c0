"""The autoregressive baseline: causality, sampling with and without the cache, exact likelihood."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive, token_nll
from pipeline.sampling import sample_tokens
from pipeline.transformer.network import KeyValueCache
from tests.tiny_networks import TINY, inputs, spread

SMALL = replace(TINY, codebook_size=12, dropout=0.0)


def decided(seed: int = 0, **changes) -> AutoregressiveTransformer:
    return spread(AutoregressiveTransformer, replace(SMALL, **changes), seed)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@torch.no_grad()
def test_a_token_changes_later_logits_only(dropout):
    """With dropout, attention takes another path; both runs draw the same noise."""
    model = decided(dropout=dropout).train()
    tokens, _, labels = inputs(model.config, 3)

    def logits(tokens: Tensor, labels: Tensor) -> Tensor:
        torch.manual_seed(0)
        return model.predict(tokens, labels)

    before = logits(tokens, labels)
    for j in range(9):
        changed = tokens.clone()
        changed[:, j] = (changed[:, j] + 1) % 12
        difference = (logits(changed, labels) - before).abs().amax(dim=-1)
        assert (difference[:, : j + 1] < 1e-6).all(), j
        assert (difference[:, j + 1 :] > 1e-4).all(), j
    difference = (logits(tokens, (labels + 1) % 4) - before).abs().amax(dim=-1)
    assert (difference > 1e-4).all()  # the class reaches every position


@torch.no_grad()
def test_chain_rule_with_the_cache():
    """Computing each position once, token by token, equals one pass over the whole sequence."""
    model = decided()
    tokens, _, labels = inputs(model.config, 5)
    caches = [KeyValueCache(9) for _ in model.blocks]
    ids, total = model.class_ids(labels), 0.0
    for n in range(9):
        logits = model.code_logits(model.encode(ids, caches, start=n))[:, 0]
        total -= logits.double().log_softmax(dim=-1).gather(1, tokens[:, n : n + 1]).sum().item()
        ids = tokens[:, n : n + 1]
    for batch_size in (5, 2):
        nll = token_nll(model, tokens, labels, batch_size=batch_size)
        assert nll == pytest.approx(total / 45, rel=1e-5)
    assert nll > 1.1 * math.log(12)  # it says something: tokens at random surprise the model


@pytest.mark.parametrize(("size", "num_tokens"), [(1, 9), (7, 9), (4, 1), (3, 25)])
def test_sampling_is_the_same_without_the_cache(size, num_tokens):
    model, labels = decided(num_tokens=num_tokens), torch.arange(size) % 4
    tokens = generate_autoregressive(model, labels, seed=0)
    assert tokens.shape == (size, num_tokens) and tokens.dtype == torch.int64
    assert tokens.min() >= 0 and tokens.max() < 12
    assert torch.equal(tokens, generate_autoregressive(model, labels, seed=0, cache=False))
    other = generate_autoregressive(model, labels, seed=1)
    assert num_tokens == 1 or not torch.equal(tokens, other)


@torch.no_grad()
def test_samples_follow_the_models_distribution():
    """Counts all nine sequences of two tokens of three codes, for each class."""
    model, count = decided(num_tokens=2, codebook_size=3), 4000
    sequences = torch.tensor(list(itertools.product(range(3), repeat=2)))
    found, wanted = [], []
    for label in (0, 1):
        labels = torch.full((count,), label)
        tokens = generate_autoregressive(model, labels, seed=label)
        found.append(np.bincount(tokens @ torch.tensor([3, 1]), minlength=9))
        log_prob = model.predict(sequences, torch.full((9,), label)).double().log_softmax(dim=-1)
        wanted.append(log_prob.gather(2, sequences[..., None]).sum(dim=(1, 2)).exp().numpy())
    for label in (0, 1):
        assert chisquare(found[label], count * wanted[label]).pvalue > 0.01
        assert chisquare(found[label], count * wanted[1 - label]).pvalue < 1e-9


def test_the_baseline_truncates_its_distribution_as_its_params_say(make_params):
    model, labels = decided(), torch.arange(40) % 4
    greedy = generate_autoregressive(model, labels, seed=0, top_k=1)
    for own in ({"top_k": 1}, {"top_p": 1e-6}, {"softmax_temperature": 1e-4}):
        params = make_params(autoregressive=own, decoding={"top_k": 3, "top_p": 0.5})
        settings = params.decoding_settings(autoregressive=True)
        assert torch.equal(sample_tokens(model, settings, labels, 5), greedy)
    plain = make_params(decoding={"top_k": 1}).decoding_settings(autoregressive=True)
    assert not torch.equal(sample_tokens(model, plain, labels, 5), greedy)


def test_sampler_draws_from_the_baseline_in_the_precision_asked_for(in_bfloat16, make_params):
    model, labels = decided(), torch.arange(200) % 4
    drawn = {}
    for bf16 in (False, True):
        settings = make_params(autoregressive={"bf16": bf16}).decoding_settings(autoregressive=True)
        drawn[bf16] = sample_tokens(model, settings, labels, 5)
        wanted = generate_autoregressive(model, labels, seed=5, bf16=bf16)
        assert torch.equal(drawn[bf16], wanted)
    assert 0.5 < (drawn[False] == drawn[True]).float().mean() < 1  # rounding decides few draws
    assert all(p.dtype == torch.float32 for p in model.parameters())
