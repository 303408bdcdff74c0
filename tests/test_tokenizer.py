"""The VQGAN tokenizer against the authors' computation; quantizer, and the losses around it."""

import math
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.discriminator import (
    Discriminator,
    adversarial_ramp,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)
from pipeline.errors import UserError
from pipeline.perceptual import classifier_distance, open_perceptual
from pipeline.quantizer import VectorQuantizer, code_usage, entropy_loss
from pipeline.released import load_pretrained
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.training.tokenizer import Reconstruction, psnr
from tests.release import FOLDER, expected, needs_fixture

RELEASED = TokenizerConfig(
    channels=3,
    filters=32,
    multipliers=(1, 2, 2),
    res_blocks=2,
    embedding_dim=16,
    codebook_size=64,
)


def small(**changes) -> Tokenizer:
    torch.manual_seed(0)
    values = {"channels": 1, "filters": 32, "multipliers": (1, 1), "res_blocks": 1}
    values |= {"embedding_dim": 4, "codebook_size": 8}
    return Tokenizer(TokenizerConfig(**(values | changes))).eval()


@needs_fixture
def test_tokenizer_matches_the_release():
    model = Tokenizer(RELEASED).eval()
    model.load_state_dict(load_pretrained(FOLDER / "tokenizer_tiny_checkpoint", RELEASED))
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
    config = TokenizerConfig(
        channels=3,
        filters=128,
        multipliers=(1, 1, 2, 2, 4),
        res_blocks=2,
        embedding_dim=256,
        codebook_size=1024,
    )
    with torch.device("meta"):
        model = Tokenizer(config)
    assert sum(p.numel() for p in model.parameters()) == 54_515_587
    assert config.downsampling == 16


@pytest.mark.parametrize(("multipliers", "factor"), [((1,), 1), ((1, 2), 2), ((1, 1, 2), 4)])
def test_shapes(multipliers, factor):
    model = small(multipliers=multipliers)
    images = torch.rand(2, 1, 8, 8)
    assert model.encode(images).shape == (2, 8 // factor, 8 // factor)
    decoded = model.decode(model.encode(images))
    assert decoded.shape == images.shape
    assert decoded.min() >= 0 and decoded.max() <= 1


# --- quantizer ------------------------------------------------------------------------------------


def random_quantizer(codes: int = 12, dimension: int = 5) -> VectorQuantizer:
    quantizer = VectorQuantizer(codes, dimension)
    with torch.no_grad():
        quantizer.codebook.copy_(torch.randn(codes, dimension, generator=seeded(0)))
    return quantizer


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


def test_entropy_loss_extremes():
    codes, sure = 16, 1e3
    all_used = sure * (1 - torch.eye(codes))  # each position certain of a code of its own
    assert entropy_loss(all_used, 0.01).item() == pytest.approx(-math.log(codes), abs=1e-3)
    one_used = sure * (1 - torch.eye(codes)[:1].expand(codes, codes))
    assert entropy_loss(one_used, 0.01).item() == pytest.approx(0, abs=1e-3)
    undecided = torch.zeros(codes, codes)
    assert entropy_loss(undecided, 0.01).item() == pytest.approx(0, abs=1e-3)


def test_entropy_loss_closed_form():
    distances = torch.rand(7, 5, generator=seeded(7))
    affinity = -distances.double().numpy() / 0.3
    p = np.exp(affinity) / np.exp(affinity).sum(axis=1, keepdims=True)
    mean = p.mean(axis=0)
    wanted = -(p * np.log(p)).sum(axis=1).mean() + (mean * np.log(mean)).sum()
    assert entropy_loss(distances, 0.3).item() == pytest.approx(wanted, abs=1e-4)


def test_code_usage_and_perplexity():
    usage, perplexity = code_usage(torch.tensor([5, 5, 0, 0, 5, 5, 0, 0]))
    assert (usage, perplexity) == (0.5, pytest.approx(4))
    usage, perplexity = code_usage(torch.tensor([9, 0, 0, 0]))
    assert (usage, perplexity) == (0.25, pytest.approx(1))
    _, perplexity = code_usage(torch.tensor([3, 1]))
    assert perplexity == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


# --- discriminator and its losses -----------------------------------------------------------------


class LinearDiscriminator(nn.Module):
    """Patch logits whose mean is w·x + 1."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images):
        logit = (images * self.weight).sum(dim=(1, 2, 3)) + 1
        return logit[:, None, None, None].expand(-1, 1, 2, 2)


def test_r1_of_a_linear_discriminator():
    weight = torch.randn(3, 4, 4, generator=seeded(8))
    penalty = r1_penalty(LinearDiscriminator(weight), torch.rand(5, 3, 4, 4))
    assert penalty.item() == pytest.approx(0.5 * weight.pow(2).sum().item(), rel=1e-5)


def test_r1_reaches_the_discriminators_weights():
    discriminator = LinearDiscriminator(torch.randn(1, 2, 2, generator=seeded(9)))
    r1_penalty(discriminator, torch.rand(3, 1, 2, 2)).backward()
    torch.testing.assert_close(discriminator.weight.grad, discriminator.weight.detach())


def test_gan_losses():
    zero = torch.zeros(2, 1, 3, 3)
    assert generator_loss(zero).item() == pytest.approx(math.log(2))
    assert discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))
    sure = torch.full((2, 1, 3, 3), 20.0)
    assert discriminator_loss(sure, -sure).item() == pytest.approx(0, abs=1e-6)
    assert generator_loss(-sure).item() == pytest.approx(20, rel=1e-6)  # does not saturate
    assert generator_loss(sure).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_discriminator_judges_patches(channels, side):
    logits = Discriminator(channels, 4)(torch.rand(2, channels, side, side))
    assert logits.shape == (2, 1, side // 4, side // 4)


def test_adversarial_ramp():
    assert [adversarial_ramp(s, 4) for s in (0, 3, 4, 5, 7, 8, 100)] == [0, 0, 0.25, 0.5, 1, 1, 1]
    assert adversarial_ramp(0, 0) == 1
    assert adversarial_ramp(50_499, 50_000) == pytest.approx(0.5)  # at most 1,000 steps


# --- perceptual loss ------------------------------------------------------------------------------


def test_classifier_distance_closed_form():
    """Squared distances of the unit vectors along channels; mean over places, sum over stages."""
    torch.manual_seed(0)
    classifier = Classifier(ClassifierConfig("small", 1, 3, 4)).eval()
    images, other = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    wanted = 0.0
    with torch.no_grad():
        maps = (classifier.outputs(x).maps for x in (images, other))
        for stage in zip(*maps, strict=True):
            a, b = (m.double().numpy() for m in stage)
            norms = (np.linalg.norm(m, axis=1, keepdims=True) for m in (a, b))
            a, b = (m / np.maximum(norm, 1e-12) for m, norm in zip((a, b), norms, strict=True))
            wanted += ((a - b) ** 2).sum(axis=1).mean()
    assert wanted > 0.01
    loss = open_perceptual("classifier", classifier, torch.device("cpu"))
    for distance in (partial(classifier_distance, classifier), loss):
        assert distance(images, other).item() == pytest.approx(wanted, rel=1e-4)
        assert distance(images, images).item() == 0
    other.requires_grad_()
    loss(images, other).backward()
    assert other.grad.abs().sum() > 0


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    """An empty $TORCH_HOME, and no network."""

    def unreachable(*args, **kwargs):
        raise OSError("Name or service not known\n(no network)")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    return tmp_path


@pytest.fixture
def random_backbone(torch_home):
    """Random weights under the name by which torchvision looks for SqueezeNet's."""
    file = Path(SqueezeNet1_1_Weights.DEFAULT.url).name
    (torch_home / "hub/checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(squeezenet1_1().state_dict(), torch_home / "hub/checkpoints" / file)


def lpips():
    return open_perceptual("lpips_squeeze", None, torch.device("cpu"))


def test_lpips_is_torchmetrics(random_backbone):
    images, other = torch.rand(2, 3, 3, 64, 64, generator=seeded(11))
    metric = LearnedPerceptualImagePatchSimilarity("squeeze", normalize=True)
    wanted = metric(images, other).item()
    distance = lpips()
    assert wanted > 1e-3 and distance(images, other).item() == pytest.approx(wanted, rel=1e-5)
    assert distance(images, images).item() == 0
    grey = torch.rand(2, 2, 1, 64, 64, generator=seeded(12))
    wanted = metric(*grey.expand(-1, -1, 3, -1, -1)).item()
    assert distance(*grey).item() == pytest.approx(wanted, rel=1e-5)


def test_lpips_trains_the_reconstruction_and_not_itself(random_backbone):
    images, other = torch.rand(2, 2, 3, 64, 64, generator=seeded(13))
    other = (1.6 * other - 0.3).requires_grad_()  # a decoder's output is not clipped
    distance, losses = lpips(), []
    optimizer = torch.optim.Adam([other], lr=0.05)
    for _ in range(5):
        loss = distance(images, other)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(later < earlier for earlier, later in pairwise(losses))


def test_lpips_without_its_backbone_is_one_line(torch_home):
    with pytest.raises(
        UserError, match=r"tokenizer\.perceptual.*lpips_squeeze.*\$TORCH_HOME"
    ) as error:
        lpips()
    assert "\n" not in str(error.value) and "no network" in str(error.value)


def test_psnr_and_reconstruction_metrics():
    assert psnr(0.01) == pytest.approx(20, abs=1e-4)
    model = small()
    images = torch.randint(256, (10, 1, 8, 8), generator=seeded(10)).to(torch.uint8)
    reconstruction = Reconstruction(model, torch.device("cpu"))
    outputs = torch.cat([reconstruction(batch) for batch in images.split(4)])
    metrics = reconstruction.metrics()
    assert outputs.shape == images.shape and outputs.dtype == torch.uint8
    error = (outputs.double() - images.double()) / 255
    assert metrics["psnr"] == pytest.approx(-10 * math.log10(error.pow(2).mean()), abs=1e-3)
    tokens = model.encode(images.float() / 255)
    assert metrics["code_usage"] == len(tokens.unique()) / 8
