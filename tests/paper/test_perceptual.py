"""The perceptual loss of the tokenizer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.perceptual import open_distance_map, open_perceptual
from tests.errors import refused
from tests.tiny_networks import seeded


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    """Set an empty $TORCH_HOME, and forbid downloads."""

    def unreachable(*args, **kwargs):
        raise OSError("Name or service not known\n(no network)")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    return tmp_path


@pytest.fixture
def random_backbone(torch_home, monkeypatch):
    """Put random weights where torchvision looks for SqueezeNet's. Skip the check of the hash."""
    monkeypatch.setattr("pipeline.perceptual.downloaded", lambda url: None)
    file = torch_home / "hub/checkpoints" / Path(SqueezeNet1_1_Weights.DEFAULT.url).name
    file.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(squeezenet1_1().state_dict(), file)


def test_classifier_distance_closed_form():
    """Squared distances of channel-wise unit vectors, averaged over places, summed over stages."""
    torch.manual_seed(0)
    classifier = Classifier(ClassifierConfig("small", 1, 3, 4)).eval()
    images, other = torch.rand(2, 2, 1, 8, 8)
    wanted = 0.0
    with torch.no_grad():
        maps = (classifier.outputs(x).maps for x in (images, other))
        for stage in zip(*maps, strict=True):
            a, b = (m.double().numpy() for m in stage)
            norms = (np.linalg.norm(m, axis=1, keepdims=True) for m in (a, b))
            a, b = (m / np.maximum(norm, 1e-12) for m, norm in zip((a, b), norms, strict=True))
            wanted = wanted + ((a - b) ** 2).sum(axis=1).mean(axis=(1, 2))
    assert wanted.min() > 0.01
    loss = open_perceptual("classifier", classifier, torch.device("cpu"))
    by_place = open_distance_map("classifier", classifier, torch.device("cpu"))
    for distances in (loss(images, other), by_place(images, other).mean(dim=(1, 2))):
        assert distances.tolist() == pytest.approx(wanted.tolist(), rel=1e-4)
    assert (loss(images, images) == 0).all()
    other.requires_grad_()
    loss(images, other).sum().backward()
    assert other.grad.abs().sum() > 0


def lpips():
    return open_perceptual("lpips_squeeze", None, torch.device("cpu"))


def test_lpips_is_torchmetrics(random_backbone):
    images, other = torch.rand(2, 3, 3, 64, 64, generator=seeded(11))
    metric = LearnedPerceptualImagePatchSimilarity("squeeze", normalize=True)
    wanted = metric(images, other).item()
    distance = lpips()
    assert distance(images, other).mean().item() == pytest.approx(wanted, rel=1e-5)
    assert wanted > 1e-3
    assert distance(images, other).shape == (len(images),)
    assert (distance(images, images) == 0).all()
    grey = torch.rand(2, 2, 1, 64, 64, generator=seeded(12))
    wanted = metric(*grey.expand(-1, -1, 3, -1, -1)).item()
    assert distance(*grey).mean().item() == pytest.approx(wanted, rel=1e-5)


def test_lpips_by_place_is_where_images_differ_and_lpips_on_the_whole(random_backbone):
    images, other = torch.rand(2, 3, 3, 64, 64, generator=seeded(14))
    by_place = open_distance_map("lpips_squeeze", None, torch.device("cpu"))
    assert by_place(images, other).shape == (3, 64, 64)
    # Interpolation gives the cells at the edges a little more weight.
    whole = by_place(images, other).mean().item()
    assert whole == pytest.approx(lpips()(images, other).mean().item(), rel=0.02)
    other[..., 32:] = images[..., 32:]
    left, right = by_place(images, other).mean(dim=(0, 1)).view(2, 32).mean(dim=1)
    assert left > 3 * right
    assert (by_place(images, images) == 0).all()


def test_lpips_without_its_backbone_is_one_line(torch_home):
    with refused(match=r"^tokenizer\.perceptual.*no network.*\$TORCH_HOME"):
        lpips()
