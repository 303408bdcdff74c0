"""The losses around the tokenizer: adversarial and perceptual."""

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
from pipeline.perceptual import classifier_distance, open_perceptual
from pipeline.runtime.errors import UserError
from tests.tiny_networks import seeded

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
