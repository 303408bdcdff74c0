"""The reference classifier, trained on real images. It gives features without a download, the
perceptual loss and the upper bound of CAS.

Images are NCHW in [0, 1].
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.runtime.errors import UserError


@dataclass(frozen=True)
class ClassifierConfig:
    architecture: str  # "small" or "torchvision:<name of a ResNet>"
    channels: int
    num_classes: int
    width: int  # of the small network's first stage


class Outputs(NamedTuple):
    maps: list[Tensor]  # feature maps of the stages, (B, C_i, H_i, W_i)
    features: Tensor  # (B, F) pooled, what FID and precision/recall compare
    logits: Tensor  # (B, classes)


class _Block(nn.Module):
    """Two 3×3 convolutions with batch norm; the first may halve the side."""

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
    """Three stages of one block each, for images of about 28 to 64 pixels."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.stages = nn.ModuleList(
            [
                _Block(channels, width, 1),
                _Block(width, 2 * width, 2),
                _Block(2 * width, 4 * width, 2),
            ]
        )
        self.num_features = 4 * width

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class TorchvisionResNet(nn.Module):
    """The four stages of a torchvision ResNet; grey images are repeated to three channels."""

    def __init__(self, name: str):
        super().__init__()
        import torchvision

        try:
            network = torchvision.models.get_model(name, weights=None)
        except ValueError as error:
            raise UserError("classifier.architecture", f"torchvision has no '{name}'") from error
        if not isinstance(network, torchvision.models.ResNet):
            reason = f"'{name}' is not a ResNet"
            raise UserError("classifier.architecture", reason, "use one, such as resnet50")
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


_Backbone = SmallResNet | TorchvisionResNet


class Classifier(nn.Module):
    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config = config
        if config.architecture == "small":
            self.backbone: _Backbone = SmallResNet(config.channels, config.width)
        else:
            self.backbone = TorchvisionResNet(config.architecture.removeprefix("torchvision:"))
        self.head = nn.Linear(self.backbone.num_features, config.num_classes)

    def outputs(self, images: Tensor) -> Outputs:
        maps = self.backbone(2 * images - 1)
        features = maps[-1].mean(dim=(2, 3))
        return Outputs(maps, features, self.head(features))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.outputs(images).logits
