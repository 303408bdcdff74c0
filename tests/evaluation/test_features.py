"""Feature extractors."""

import io
from email.message import Message

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.transforms import _presets as transforms

from pipeline import classifier
from pipeline.config.paths import CLASSIFIER
from pipeline.evaluation.features import extract, open_extractor
from pipeline.runtime import device
from pipeline.runtime.errors import UserError
from pipeline.weights.published import load_model, save_model
from stages import train_classifier
from tests.tiny_project import CLASSES, CPU, SIDE, with_params


@pytest.mark.parametrize("name, kind", [("inception", "other weights"), ("vgg", "missing")])
def test_weights_that_do_not_load_name_the_param(tmp_path, make_params, name, kind):
    path = tmp_path / "weights.pth"
    if kind == "other weights":
        torch.save({"x": torch.zeros(2)}, path)
    evaluation = make_params(evaluation={f"{name}_weights": str(path)}).evaluation
    with pytest.raises(UserError) as error:
        open_extractor(name, None, evaluation, CPU)
    assert error.value.subject == f"evaluation.{name}_weights"
    assert "weights.pth" in error.value.reason


@pytest.mark.parametrize("name", ["inception", "vgg"])
def test_a_download_of_other_bytes_is_not_kept(tmp_path, monkeypatch, make_params, name):
    """A download is compared with the published hash of the file."""
    monkeypatch.setattr(torch.hub, "urlopen", lambda request: Response(b"not the weights"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match="invalid hash value") as error:
        open_extractor(name, None, make_params().evaluation, CPU)
    assert error.value.subject == f"evaluation.{name}_weights"
    assert list((tmp_path / "checkpoints").iterdir()) == []


class Response(io.BytesIO):
    """A server's."""

    def info(self) -> Message:
        return Message()


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", ["classifier", "random"])
def test_features_in_bfloat16_differ_by_its_rounding(in_tiny_project, monkeypatch, quick, name):
    """On a CPU that is quick in bfloat16 alone."""
    monkeypatch.setattr(device, "quick_in_bfloat16", lambda where: quick)
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(256, (32, 1, SIDE, SIDE), generator=noise, dtype=torch.uint8)
    network = load_model(CLASSIFIER, "classifier")
    exact, rounded = (
        open_extractor(name, network, with_params(evaluation={"bf16": bf16}).evaluation, CPU)
        for bf16 in (False, True)
    )
    ours, theirs = extract(exact, images), extract(rounded, images)
    assert theirs.features.dtype == theirs.logits.dtype == torch.float32
    apart = (ours.features - theirs.features).norm() / ours.features.norm()
    assert 1e-4 < apart < 2e-2 if quick else apart == 0
    assert exact.name == rounded.name == name


@pytest.fixture
def resnet(tmp_path) -> nn.Module:
    """Of three classes; its state dict is in `resnet.pth`."""
    torch.manual_seed(0)
    network = models.resnet18(num_classes=CLASSES)
    network(torch.randn(8, 3, 64, 64))  # batch statistics of its own
    torch.save(network.state_dict(), tmp_path / "resnet.pth")
    return network.eval()


@pytest.mark.parametrize("side", [48, 64])
def test_a_released_classifier_gives_torchvisions_logits(tmp_path, monkeypatch, resnet, side):
    assert classifier.IMAGENET_SIDE == 256
    monkeypatch.setattr(classifier, "IMAGENET_SIDE", 64)  # which is quicker
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    ours = classifier.torchvision_classifier("resnet18", tmp_path / "resnet.pth")
    preset = transforms.ImageClassification(crop_size=64, resize_size=64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), resnet(preset(images)), rtol=1e-4, atol=1e-4)
    save_model(tmp_path / "model", "classifier", ours.config, ours.state_dict())
    published = load_model(tmp_path / "model", "classifier")
    assert torch.equal(published(images[:, :1]), ours(images[:, :1].expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("architecture, classes", [("resnet34", CLASSES), ("resnet18", 5)])
def test_a_released_classifier_that_does_not_fit_names_the_param(
    in_tiny_project, tmp_path, architecture, classes
):
    network = models.resnet18(num_classes=classes)
    torch.save(network.state_dict(), tmp_path / "other.pth")
    given = {"pretrained": str(tmp_path / "other.pth")}
    params = with_params(classifier=given | {"architecture": f"torchvision:{architecture}"})
    with pytest.raises(UserError) as error:
        train_classifier.main(params)
    assert error.value.subject == "classifier.pretrained"
