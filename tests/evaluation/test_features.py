"""Feature extractors."""

import pytest
import torch
from torchvision import models
from torchvision.transforms import _presets as transforms

from pipeline import classifier
from pipeline.evaluation.features import open_extractor
from pipeline.weights.published import load_model, save_model
from stages import train_classifier
from tests.errors import refused
from tests.tiny_project import CPU, with_params


@pytest.mark.parametrize("name, kind", [("inception", "other weights"), ("vgg", "missing")])
def test_weights_that_do_not_load_name_the_param(tmp_path, make_params, name, kind):
    path = tmp_path / "weights.pth"
    if kind == "other weights":
        torch.save({"x": torch.zeros(2)}, path)
    evaluation = make_params(evaluation={f"{name}_weights": str(path)}).evaluation
    with refused(f"evaluation.{name}_weights", "weights.pth"):
        open_extractor(name, None, evaluation, CPU)


@pytest.mark.slow  # builds two ResNets
def test_a_released_classifier_gives_torchvisions_logits_or_names_the_param(
    in_tiny_project, tmp_path, monkeypatch
):
    assert classifier.IMAGENET_SIDE == 256
    monkeypatch.setattr(classifier, "IMAGENET_SIDE", 64)  # smaller images are faster
    preset = transforms.ImageClassification(crop_size=64, resize_size=64)
    torch.manual_seed(0)
    network, file = models.resnet18(num_classes=5), tmp_path / "resnet.pth"
    network(torch.randn(8, 3, 64, 64))  # updates the batch norm statistics
    torch.save(network.eval().state_dict(), file)
    ours = classifier.torchvision_classifier("resnet18", file)
    for side in (48, 64):
        images = torch.rand(2, 3, side, side)
        torch.testing.assert_close(ours(images), network(preset(images)), rtol=1e-4, atol=1e-4)
    save_model(tmp_path / "model", "classifier", ours.config, ours.state_dict())
    published, grey = load_model(tmp_path / "model", "classifier"), images[:, :1]
    assert torch.equal(published(grey), ours(grey.expand(-1, 3, -1, -1)))

    # The weights have five classes, but the data set has three. A ResNet-34 has more layers.
    for architecture in ("torchvision:resnet18", "torchvision:resnet34"):
        given = {"pretrained": str(file), "architecture": architecture}
        with refused("classifier.pretrained"):
            train_classifier.main(with_params(classifier=given, sweep={"samples": 600}))
