"""The VQGAN tokenizer against values of the authors' code; its quantizer and metrics."""

import numpy as np
import pytest
import torch

from pipeline.runtime.errors import UserError
from pipeline.tokenizer import Tokenizer, TokenizerConfig, tokens_to_images
from pipeline.tokenizer.quantizer import VectorQuantizer, code_usage, entropy_loss
from pipeline.weights.released.checkpoint import load_pretrained
from tests.release import TOKENIZER_CHECKPOINT, expected, needs_tokenizer
from tests.tiny_networks import seeded

# Channels, filters, multipliers, residual blocks, embedding dimension, codes.
RELEASED = TokenizerConfig(3, 32, (1, 2, 2), 2, 16, 64)
PAPER = TokenizerConfig(3, 128, (1, 1, 2, 2, 4), 2, 256, 1024)


@needs_tokenizer
def test_tokenizer_matches_the_release():
    model = load_pretrained(TOKENIZER_CHECKPOINT, RELEASED)
    arrays = {name: torch.from_numpy(value) for name, value in expected().items()}
    images = arrays["image"].permute(0, 3, 1, 2)
    with torch.no_grad():
        encoded = model.encoder(images).permute(0, 2, 3, 1)
        tokens = model.encode(images)
        reconstruction, quantized = model(images)
    torch.testing.assert_close(encoded, arrays["encoded"], atol=1e-4, rtol=0)
    assert torch.equal(tokens, arrays["indices"].long())
    assert torch.equal(quantized.tokens, tokens)
    wanted = arrays["reconstruction"]
    torch.testing.assert_close(reconstruction.permute(0, 2, 3, 1), wanted, atol=1e-4, rtol=0)
    decoded = model.decode(tokens).permute(0, 2, 3, 1)
    torch.testing.assert_close(decoded, wanted.clamp(0, 1), atol=1e-4, rtol=0)


def test_parameter_count_at_the_papers_size():
    with torch.device("meta"):
        model = Tokenizer(PAPER)
    assert sum(p.numel() for p in model.parameters()) == 54_515_587
    assert PAPER.downsampling == 16


def random_quantizer() -> VectorQuantizer:
    quantizer = VectorQuantizer(12, 5)
    with torch.no_grad():
        quantizer.codebook.copy_(torch.randn(12, 5, generator=seeded(0)))
    return quantizer


def test_nearest_is_the_nearest():
    quantizer = random_quantizer()
    z = torch.randn(3, 5, 2, 4, generator=seeded(1))
    codes = quantizer.codebook.detach().double().numpy()
    tokens = quantizer.nearest(z)
    distances = quantizer.distances(z).detach()
    for row, (b, i, j) in enumerate(np.ndindex(3, 2, 4)):
        squared = ((codes - z[b, :, i, j].double().numpy()) ** 2).sum(axis=1)
        assert tokens[b, i, j] == squared.argmin()
        np.testing.assert_allclose(distances[row].numpy(), squared, rtol=1e-4, atol=1e-4)
    looked_up = quantizer.lookup(tokens)
    assert torch.equal(looked_up[2, :, 1, 3], quantizer.codebook[tokens[2, 1, 3]])


def test_straight_through_and_where_each_loss_pulls():
    quantizer = random_quantizer()
    z = torch.randn(2, 5, 3, 3, generator=seeded(2)).requires_grad_()
    out = quantizer(z)
    torch.testing.assert_close(out.embedding, quantizer.lookup(out.tokens))
    weight = torch.randn(2, 5, 3, 3, generator=seeded(3))
    (gradient,) = torch.autograd.grad((out.embedding * weight).sum(), z, retain_graph=True)
    assert torch.equal(gradient, weight)
    codes = quantizer.lookup(out.tokens)
    (pull,) = torch.autograd.grad(out.commitment_loss, z, retain_graph=True)
    torch.testing.assert_close(pull, 2 * (z - codes) / z.numel())
    to_codes = torch.autograd.grad(
        out.commitment_loss, quantizer.codebook, retain_graph=True, allow_unused=True
    )
    assert to_codes[0] is None
    (pull,) = torch.autograd.grad(out.codebook_loss, quantizer.codebook, retain_graph=True)
    unused = torch.bincount(out.tokens.flatten(), minlength=12) == 0
    assert unused.any() and not pull[unused].any() and pull[~unused].any(dim=1).all()
    assert torch.autograd.grad(out.codebook_loss, z, allow_unused=True)[0] is None
    mean_squared = ((z - codes) ** 2).mean().item()
    assert out.commitment_loss.item() == pytest.approx(mean_squared, rel=1e-5)
    assert out.codebook_loss.item() == pytest.approx(mean_squared, rel=1e-5)


def test_revive_moves_dead_codes_onto_encoder_outputs_and_no_others():
    quantizer = random_quantizer()
    before = quantizer.codebook.detach().clone()
    z = torch.randn(2, 5, 2, 2, generator=seeded(4))
    dead = torch.zeros(12, dtype=torch.bool)
    dead[[1, 7]] = True
    quantizer.revive(z, dead, seeded(5))
    after = quantizer.codebook.detach()
    assert torch.equal(after[~dead], before[~dead])
    outputs = {tuple(row) for row in z.movedim(1, -1).flatten(0, 2).tolist()}
    assert all(tuple(row) in outputs for row in after[dead].tolist())
    quantizer.revive(z, torch.zeros(12, dtype=torch.bool), seeded(6))
    assert torch.equal(quantizer.codebook, after)


def test_entropy_loss_closed_form():
    distances = torch.rand(7, 5, generator=seeded(7))
    affinity = -distances.double().numpy() / 0.3
    p = np.exp(affinity) / np.exp(affinity).sum(axis=1, keepdims=True)
    mean = p.mean(axis=0)
    wanted = -(p * np.log(p)).sum(axis=1).mean() + (mean * np.log(mean)).sum()
    assert entropy_loss(distances, 0.3).item() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("counts", "usage", "perplexity"),
    [([5, 5, 0, 0], 0.5, 2), ([9, 0, 0, 0], 0.25, 1), ([3, 1], 1, 4 / 3**0.75)],
)
def test_code_usage_and_perplexity(counts, usage, perplexity):
    assert code_usage(torch.tensor(counts)) == (usage, pytest.approx(perplexity))


def test_pixels_that_are_nan_are_no_picture():
    model = Tokenizer(TokenizerConfig(1, 32, (1, 1), 1, 4, 8))
    torch.nn.init.constant_(model.decoder.out.weight, torch.nan)
    with pytest.raises(UserError, match="pixels are NaN"):
        tokens_to_images(model, torch.zeros(1, 4, dtype=torch.long))
