"""Large batches go through a network in parts, which changes nothing."""

from functools import partial

import pytest
import torch

from pipeline import autoregressive, decoding, masking
from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive, token_nll
from pipeline.data.microbatches import in_parts
from pipeline.decoding import DecodingSettings, generate
from pipeline.masking import masked_nll
from pipeline.tokenizer import vqgan
from pipeline.transformer import MaskGitTransformer
from tests.editing_inputs import models, random_images
from tests.tiny_networks import TINY, inputs, spread


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 5, 6])
def test_no_part_is_larger_and_rows_keep_their_order(rows):
    seen = []

    def double(x, y):
        seen.append(len(x))
        return x + y

    x = torch.arange(5)
    assert torch.equal(in_parts(double, rows, x, x), 2 * x)
    assert max(seen) == min(max(rows, 1), 5) and sum(seen) == 5


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0])
def test_samples_do_not_depend_on_the_parts(monkeypatch, guidance_scale):
    settings = DecodingSettings(4, "cosine", 4.5, guidance_scale=guidance_scale)
    model, labels = spread(MaskGitTransformer), torch.arange(7) % 4
    whole = generate(model, labels, settings, seed=1)[-1].sampled
    monkeypatch.setattr(decoding, "TOKENS", 4 * TINY.num_tokens)
    assert torch.equal(generate(model, labels, settings, seed=1)[-1].sampled, whole)


def test_samples_of_the_baseline_do_not_depend_on_the_parts(monkeypatch):
    model, labels = spread(AutoregressiveTransformer), torch.arange(7) % 4
    whole = generate_autoregressive(model, labels, seed=3)
    monkeypatch.setattr(autoregressive, "TOKENS", 3 * TINY.num_tokens)
    assert torch.equal(generate_autoregressive(model, labels, seed=3), whole)


@pytest.mark.parametrize(
    ("network", "nll", "module"),
    [
        (MaskGitTransformer, partial(masked_nll, schedule="cosine", seed=1), masking),
        (AutoregressiveTransformer, token_nll, autoregressive),
    ],
)
def test_the_likelihood_does_not_depend_on_the_parts(monkeypatch, network, nll, module):
    model, (tokens, _, labels) = spread(network), inputs(size=7)
    whole = nll(model, tokens, labels)
    monkeypatch.setattr(module, "TOKENS", 3 * TINY.num_tokens)
    assert nll(model, tokens, labels) == pytest.approx(whole, rel=1e-6)


def test_tokens_and_images_do_not_depend_on_the_parts(monkeypatch):
    _, tokenizer = models(5)
    images = random_images(0, 5, 3, 10, 10) / 255
    tokens = tokenizer.encode(images)
    rebuilt = tokenizer.decode(tokens)
    monkeypatch.setattr(vqgan, "PIXELS", 2 * 100)
    assert torch.equal(tokenizer.encode(images), tokens)
    torch.testing.assert_close(tokenizer.decode(tokens), rebuilt)
