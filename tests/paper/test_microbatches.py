"""Large batches go through a network in parts; results stay the same."""

import pytest
import torch

from pipeline import autoregressive, masking
from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive, token_nll
from pipeline.data.microbatches import in_parts
from pipeline.decoding import iterative as decoding
from pipeline.decoding.iterative import generate
from pipeline.decoding.settings import DecodingSettings
from pipeline.masking import masked_nll
from pipeline.tokenizer import vqgan
from pipeline.transformer import MaskGitTransformer
from tests.editing_inputs import models, random_images
from tests.tiny_networks import TINY, inputs, spread

GUIDED = DecodingSettings(4, "cosine", 4.5, guidance_scale=1.0)


@pytest.mark.parametrize("rows", [0, 2, 5, 6])
def test_no_part_is_larger_and_rows_keep_their_order(rows):
    lengths = []

    def add(x, y):
        lengths.append(len(x))
        return x + y

    x = torch.arange(5)
    assert torch.equal(in_parts(add, rows, x, x), 2 * x)
    assert max(lengths) == min(max(rows, 1), 5) and sum(lengths) == 5


@pytest.mark.parametrize("network", [MaskGitTransformer, AutoregressiveTransformer])
def test_samples_and_likelihoods_do_not_depend_on_the_parts(monkeypatch, network):
    model, labels, (tokens, _, classes) = spread(network), torch.arange(7) % 4, inputs(size=7)

    def results():
        if network is AutoregressiveTransformer:
            samples = generate_autoregressive(model, labels, seed=3)
            return samples, token_nll(model, tokens, classes)
        *_, last = generate(model, labels, GUIDED, seed=1)
        return last.sampled, masked_nll(model, tokens, classes, schedule="cosine", seed=1)

    samples, nll = results()
    for module in (decoding, masking, autoregressive):
        monkeypatch.setattr(module, "TOKENS", 3 * TINY.num_tokens)
    again, nll_again = results()
    assert torch.equal(again, samples) and nll_again == pytest.approx(nll, rel=1e-6)


def test_tokens_and_images_do_not_depend_on_the_parts(monkeypatch):
    _, tokenizer = models(5)
    images = random_images(0, 5, 3, 10, 10) / 255
    tokens = tokenizer.encode(images)
    rebuilt = tokenizer.decode(tokens)
    monkeypatch.setattr(vqgan, "PIXELS", 2 * 100)
    assert torch.equal(tokenizer.encode(images), tokens)
    torch.testing.assert_close(tokenizer.decode(tokens), rebuilt)
