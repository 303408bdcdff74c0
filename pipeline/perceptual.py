"""The perceptual loss of the tokenizer: LPIPS (Zhang et al. 2018), or a distance between deep
features of the reference classifier, which needs no download."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.classifier import Classifier
from pipeline.runtime.errors import UserError
from pipeline.runtime.pytorch_files import downloaded, only_tensors

Perceptual = Callable[[Tensor, Tensor], Tensor]


def open_perceptual(name: str, classifier: Classifier, device: torch.device) -> Perceptual:
    """Open a perceptual distance: a differentiable function that maps two batches of images (B, C,
    H, W) in [0, 1] to distances (B,). The tokenizer's perceptual loss is the mean distance.

    Args:
        name: the param `tokenizer.perceptual`: "classifier", or "lpips_<backbone>", whose weights
            torchvision downloads (or finds in $TORCH_HOME).

    Raises:
        UserError: the backbone's weights cannot be downloaded or read.
    """
    if name == "classifier":
        return partial(classifier_distance, classifier)
    network = _lpips_network(name.removeprefix("lpips_"), device)
    return lambda images, reconstruction: _lpips_of(network, images, reconstruction).flatten()


def classifier_distance(classifier: Classifier, images: Tensor, others: Tensor) -> Tensor:
    """Perceptual distance (B,) by the reference classifier: the squared distance between
    channel-normalised feature maps, summed over stages. (LPIPS also weights the channels.)"""
    pairs = zip(classifier.outputs(images).maps, classifier.outputs(others).maps, strict=True)
    stages = [(_unit(a) - _unit(b)).pow(2).sum(dim=1).mean(dim=(1, 2)) for a, b in pairs]
    return sum(stages[1:], start=stages[0])


def _unit(maps: Tensor) -> Tensor:
    # `F.normalize` does the same, but takes a tenth of the tokenizer's training time on a CPU.
    return maps / maps.pow(2).sum(dim=1, keepdim=True).clamp(min=1e-24).sqrt()


def open_distance_map(name: str, classifier: Classifier, device: torch.device) -> Perceptual:
    """Open a map of perceptual distances: a function that maps two batches of images (B, C, H, W)
    in [0, 1] to the distance at each pixel, (B, H, W). The map's mean is the distance that
    `open_perceptual` gives, up to interpolation at image edges. Arguments are as for that function.
    Raises a `UserError` if the weights of an LPIPS backbone cannot be downloaded or read."""
    if name == "classifier":
        return partial(classifier_distance_map, classifier)
    network = _lpips_network(name.removeprefix("lpips_"), device, by_place=True)
    return lambda images, others: _lpips_of(network, images, others)[:, 0]


def classifier_distance_map(classifier: Classifier, images: Tensor, others: Tensor) -> Tensor:
    """`classifier_distance` at each pixel, (B, H, W): the sum, over the classifier's stages, of the
    squared distance in the cell of the feature map that contains the pixel."""
    pairs = zip(classifier.outputs(images).maps, classifier.outputs(others).maps, strict=True)
    stages = [(_unit(a) - _unit(b)).pow(2).sum(dim=1, keepdim=True) for a, b in pairs]
    return torch.cat([F.interpolate(x, images.shape[-2:]) for x in stages], dim=1).sum(dim=1)


def _lpips_of(network: nn.Module, images: Tensor, others: Tensor) -> Tensor:
    rgb = (x.expand(-1, 3, -1, -1) for x in (images, others))
    return network(*rgb, normalize=True)  # normalize: from [0, 1] to [-1, 1]


def _lpips_network(backbone: str, device: torch.device, by_place: bool = False) -> nn.Module:
    """Load LPIPS. It returns distances (B, 1, 1, 1) or, if `by_place`, per pixel (B, 1, H, W)."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    from torchvision import models

    backbones = {
        "vgg": models.VGG16_Weights,
        "alex": models.AlexNet_Weights,
        "squeeze": models.SqueezeNet1_1_Weights,
    }
    url = backbones[backbone].DEFAULT.url
    try:
        downloaded(url)  # to the folder that torchvision reads
        with only_tensors():
            # Params allow only the three backbones above.
            network = LearnedPerceptualImagePatchSimilarity(backbone).net  # type: ignore[arg-type]
    except Exception as error:  # a download may fail in many ways
        cause = " ".join(str(error).split())[:200]
        reason = f"cannot read or download {url} ({cause})"
        way_out = "put the file into $TORCH_HOME/hub/checkpoints, or set the param to 'classifier'"
        raise UserError("tokenizer.perceptual", reason, way_out) from error
    network.spatial = by_place
    return network.to(device).eval().requires_grad_(False)
