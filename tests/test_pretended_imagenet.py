"""The large networks of the ImageNet presets (ResNet-50, LPIPS, Inception, VGG) as on a GPU
(`tests.pretended`). Those that are published have random weights."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor
from torchvision.models import VGG
from torchvision.models._api import WeightsEnum

from pipeline import perceptual
from pipeline.classifier import ClassifierConfig
from pipeline.evaluation import features
from pipeline.evaluation.features import (
    ClassifierExtractor,
    InBfloat16,
    PretrainedExtractor,
    extract,
)
from pipeline.perceptual import open_distance_map, open_perceptual
from pipeline.training.classifier import new_classifier
from tests.editing_inputs import random_images
from tests.pretended import pretended_device
from tests.test_pretended_inference import back, moved
from tests.test_pretended_training import (
    CPU,
    assert_as_on_a_cpu,
    classifier_on,
    tokenizer_on,
)

RESNET = ClassifierConfig("torchvision:resnet50", channels=3, num_classes=3, width=0)


def batches(step: int, channels: int = 3, side: int = 32) -> tuple[Tensor, Tensor]:
    """Six noise images (6, channels, side, side) uint8 of three classes."""
    return random_images(step, 6, channels, side, side), torch.arange(6) % 3


@pytest.fixture
def in_float64(monkeypatch):
    """All that is float32 is float64. ResNet-50 makes 3% of a gradient of what float32 rounds, by
    other sides of its ReLUs, and Adam a loss of its own of that."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def random_vgg(monkeypatch):
    """Torchvision's VGG keeps the weights that it is made with, and nothing is downloaded."""
    monkeypatch.setattr(VGG, "load_state_dict", lambda *_, **__: None)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: {})
    monkeypatch.setattr(perceptual, "downloaded", lambda url: None)
    monkeypatch.setattr(features, "downloaded", lambda url: "none")


def assert_features_are_a_cpus(gpu, name: str, monkeypatch, waits: list[str]) -> None:
    """Of a published network, whose file is not read; what a GPU waits for in each batch."""
    monkeypatch.setattr(features, "only_tensors", nullcontext)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: {})
        torch.manual_seed(0)
        extractor = PretrainedExtractor(name, None, CPU)
    images = [random_images(seed, 2, 3, 32, 32) for seed in range(2)]
    wanted, rounded = extract(extractor, images), extract(InBfloat16(extractor, CPU), images)
    assert rounded.features.dtype == torch.float32
    apart = (rounded.features - wanted.features).norm() / wanted.features.norm()
    assert apart < 0.05  # on a CPU that is slow in bfloat16 it is 0
    moved(extractor.network, gpu)
    extractor.device = pretended_device()
    found = extract(extractor, images)
    for mine, other in zip(found, wanted, strict=True):
        if other is not None:
            assert other.std(dim=0).max() > 0  # images have features of their own
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)
    assert gpu.waits == waits * 2


@pytest.mark.slow
def test_inception(gpu, monkeypatch):
    monkeypatch.setattr(features, "downloaded", lambda url: "none")
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        assert_features_are_a_cpus(
            gpu, "inception", monkeypatch, ["copy on", "copy off", "copy off"]
        )


def test_vgg(gpu, random_vgg, monkeypatch):
    """torchvision's `normalize` copies mean and deviation to the device, and looks whether one of
    these is 0, for each batch."""
    waits = ["copy on", "copy on", "copy on", "look", "copy off"]
    assert_features_are_a_cpus(gpu, "vgg", monkeypatch, waits)


@pytest.mark.parametrize("opens", [open_perceptual, open_distance_map])
def test_lpips(gpu, random_vgg, opens):
    """Distances, and what the tokenizer learns of them; nothing waits."""
    images, others = (random_images(seed, 2, 3, 32, 32) / 255 for seed in range(2))
    found = []
    for device in (CPU, pretended_device()):
        torch.manual_seed(0)
        distance = opens("lpips_vgg", None, device)
        mine, other = (x.clone().to(device) for x in (images, others))
        other.requires_grad_()
        gpu.waits.clear()
        between = distance(mine, other)
        between.sum().backward()
        assert gpu.waits == [] and between.device == other.grad.device == device
        found.append((between.detach().cpu(), other.grad.cpu()))
    (wanted, gradient), (mine, pull) = found
    assert wanted.min() > 0 and gradient.abs().max() > 0
    torch.testing.assert_close(mine, wanted)
    torch.testing.assert_close(pull, gradient)


@pytest.mark.parametrize("bf16, tolerance", [(False, 3e-3), (True, 0.1)])
def test_a_tokenizers_step_with_lpips(gpu, random_vgg, make_params, bf16, tolerance):
    changes = {"discriminator": "patch", "adaptive_weight": False, "bf16": bf16}

    def make_task(device):
        grey = partial(batches, channels=1)
        return tokenizer_on(device, make_params, "lpips_vgg", grey, **changes)

    assert_as_on_a_cpu(make_task, gpu, range(3), tolerance=tolerance)


def test_features_of_a_resnet(gpu):
    torch.manual_seed(0)
    classifier = new_classifier(RESNET, CPU).eval().requires_grad_(False)
    images = [batches(step)[0] for step in range(2)]
    here = extract(ClassifierExtractor(classifier, CPU), images)
    extractor = ClassifierExtractor(moved(classifier, gpu), pretended_device())
    there = extract(extractor, images)
    assert here.features.std(dim=0).max() > 0
    torch.testing.assert_close(there.features, here.features)
    torch.testing.assert_close(there.logits, here.logits)
    assert back(gpu) == ["copy off"] * 4  # features and logits of each batch


def test_a_resnets_step(gpu, in_float64, make_params):
    def make_task(device):
        return classifier_on(device, make_params, False, RESNET, batches)

    assert_as_on_a_cpu(make_task, gpu, range(2), tolerance=1e-8)


def test_a_resnets_step_in_bfloat16(gpu, make_params):
    """Of images whose last maps are 2 × 2: six values in a batch norm would not be enough."""

    def make_task(device):
        large = partial(batches, side=64)
        return classifier_on(device, make_params, True, config=RESNET, batches=large)

    assert_as_on_a_cpu(make_task, gpu, range(1), tolerance=0.1)
