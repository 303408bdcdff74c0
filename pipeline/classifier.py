"""The reference classifier, trained on real images. Metrics and the perceptual loss can use its
features instead of a downloaded network's. Rejection sampling uses its class probabilities.

Images are NCHW with values in [0, 1].
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.pytorch_files import downloaded, only_tensors

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of colours
IMAGENET_SIDE = 256  # side in pixels to which torchvision resizes images for evaluation


@dataclass(frozen=True)
class ClassifierConfig:
    architecture: str  # small, torchvision:<ResNet>, or imagenet:<ResNet> for torchvision's weights
    channels: int
    num_classes: int
    width: int  # channels of the small network's first stage


class Outputs(NamedTuple):
    maps: list[Tensor]  # feature maps of the stages, (B, C_i, H_i, W_i)
    features: Tensor  # (B, F) pooled features, which FID, precision and recall compare
    logits: Tensor  # (B, classes)


class _Block(nn.Module):
    """A residual block of two 3×3 convolutions with batch norm. With stride 2, the first
    convolution halves the sides of the feature map."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class SmallResNet(nn.Module):
    """A ResNet of three stages with one block each, for images of about 28 to 64 pixels a side. It
    returns the feature maps of all stages."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        first, second = _Block(channels, width, 1), _Block(width, 2 * width, 2)
        self.stages = nn.ModuleList([first, second, _Block(2 * width, 4 * width, 2)])
        self.num_features = 4 * width

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class TorchvisionResNet(nn.Module):
    """A torchvision ResNet that returns the feature maps of its four stages. Grey images are
    repeated to three channels."""

    def __init__(self, name: str):
        super().__init__()
        import torchvision

        key, way_out = "classifier.architecture", "use a ResNet, such as torchvision:resnet50"
        try:
            network = torchvision.models.get_model(name, weights=None)
        except ValueError as error:
            raise UserError(key, f"torchvision has no model '{name}'", way_out) from error
        if not isinstance(network, torchvision.models.ResNet):
            raise UserError(key, f"'{name}' is not a ResNet", way_out)
        self.num_features = network.fc.in_features
        self.stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        self.stages = nn.ModuleList(
            [network.layer1, network.layer2, network.layer3, network.layer4]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x.expand(-1, 3, -1, -1))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Classifier(nn.Module):
    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config = config
        kind, _, name = config.architecture.partition(":")
        self.prepare = _for_imagenet if kind == "imagenet" else _centred
        self.backbone: SmallResNet | TorchvisionResNet = (
            TorchvisionResNet(name) if name else SmallResNet(config.channels, config.width)
        )
        self.head = nn.Linear(self.backbone.num_features, config.num_classes)

    def outputs(self, images: Tensor) -> Outputs:
        maps = self.backbone(self.prepare(images))
        features = maps[-1].mean(dim=(2, 3))
        return Outputs(maps, features, self.head(features))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.outputs(images).logits


def _centred(images: Tensor) -> Tensor:
    return 2 * images - 1


def _for_imagenet(images: Tensor) -> Tensor:
    """Resize images to 256×256 pixels and normalise them, as torchvision's weights expect.
    (torchvision also crops the central 224×224 pixels; the network takes images of any size.)"""
    if images.shape[-1] != IMAGENET_SIDE:
        images = F.interpolate(images, IMAGENET_SIDE, mode="bilinear", antialias=True)
    mean, deviation = (images.new_tensor(each)[:, None, None] for each in IMAGENET)
    return (images - mean) / deviation


def torchvision_classifier(name: str, file: Path | None = None) -> Classifier:
    """Load the torchvision ResNet `name` with weights from a file with a state dict. Without a
    file, torchvision's ImageNet weights (IMAGENET1K_V1) are downloaded. The weights of the last
    layer set the number of classes. The network is in evaluation mode, with frozen weights.

    Raises:
        UserError: the weights cannot be downloaded or loaded.
    """
    from torchvision import models

    try:
        path = file or downloaded(models.get_model_weights(name)["IMAGENET1K_V1"].url)
        with only_tensors():
            weights = torch.load(path, map_location="cpu", weights_only=True)
        classes = len(weights["fc.bias"])
        network = models.get_model(name, num_classes=classes)
        network.load_state_dict(weights)
    except Exception as error:  # a download, a file or a state dict may fail in many ways
        reason = f"cannot load {file or 'the download'} ({in_a_line(error)})"
        way_out = "give a file of torchvision weights that fit classifier.architecture"
        raise UserError("classifier.pretrained", reason, way_out) from error
    model = Classifier(
        ClassifierConfig(f"imagenet:{name}", channels=3, num_classes=classes, width=0)
    )
    ours = zip(model.state_dict(), network.state_dict().values(), strict=True)
    model.load_state_dict(dict(ours))  # both state dicts list the layers in the same order
    return model.eval().requires_grad_(False)
