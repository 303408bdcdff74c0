"""The tokenizer's discriminators, and the adversarial losses: non-saturating with R1, as in the
authors' release.

Discriminators map images (B, C, H, W) in [0, 1] to real/fake logits (B, 1, h, w).
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDEST = 512  # maximum channels of a convolution in StyleGAN's discriminator
SMALLEST = 4  # side in pixels of the last feature map


class PatchDiscriminator(nn.Module):
    """A convolutional network with one real/fake logit per overlapping patch of 26×26 pixels."""

    def __init__(self, channels: int, filters: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, filters, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(filters, 2 * filters, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * filters, 4 * filters, 3, 1, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * filters, 1, 3, 1, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(2 * images - 1)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


class BlurPool(nn.Module):
    """Halves the sides of feature maps: a binomial filter with stride 2 (Zhang 2019)."""

    def __init__(self, channels: int):
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        kernel = (taps[:, None] * taps).expand(channels, 1, -1, -1).clone()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.get_buffer("kernel"), stride=2, padding=1, groups=x.shape[1])


class StyleGanBlock(nn.Module):
    """A residual block of StyleGAN's discriminator. It halves the sides of feature maps."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.blur = BlurPool(inputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = _leaky(self.conv2(self.blur(_leaky(self.conv1(x)))))
        return (y + self.shortcut(self.blur(x))) / 2**0.5  # keeps the variance


class StyleGanDiscriminator(nn.Module):
    """The authors' discriminator: StyleGAN's residual network with blur-pooling and one logit per
    image.

    Args:
        filters: channels at the images' full size (release: 64). Each halving doubles the number,
            up to 512.
        side: side of the images in pixels: a power of 2, at least 4.
    """

    def __init__(self, channels: int, filters: int, side: int):
        super().__init__()
        halvings = (side // SMALLEST).bit_length() - 1
        widths = [min(filters * 2**i, WIDEST) for i in range(halvings + 1)]
        last = widths[-1]
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.Sequential(*(StyleGanBlock(a, b) for a, b in pairwise(widths)))
        self.conv = nn.Conv2d(last, last, 3, padding=1)
        self.hidden = nn.Linear(SMALLEST**2 * last, last)
        self.out = nn.Linear(last, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = _leaky(self.conv(self.blocks(_leaky(self.stem(images)))))
        return self.out(_leaky(self.hidden(x.flatten(1))))[:, :, None, None]


def make_discriminator(
    name: Literal["patch", "stylegan"], channels: int, filters: int, side: int
) -> PatchDiscriminator | StyleGanDiscriminator:
    """Make a discriminator with random weights, for images of `side` × `side` pixels. `name` is a
    value of the param `tokenizer.discriminator`."""
    if name == "patch":
        return PatchDiscriminator(channels, filters)
    return StyleGanDiscriminator(channels, filters, side)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """The non-saturating generator loss, -log D(fake)."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The discriminator loss, -log D(real) - log(1 - D(fake))."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """‖∇D(x)‖² at real images (B, C, H, W), averaged over the batch, as in the authors' code
    (without the factor ½ of Mescheder et al. 2018). D is the mean logit of an image."""
    real = real.detach().requires_grad_()
    logits = discriminator(real)
    (gradient,) = torch.autograd.grad(logits.mean(dim=(1, 2, 3)).sum(), real, create_graph=True)
    return gradient.pow(2).sum(dim=(1, 2, 3)).mean()


def adversarial_ramp(step: int, start: int) -> float:
    """Weight in [0, 1] of the adversarial loss. It is 0 before step `start`, then rises linearly to
    1 over min(start, 1000) steps, so that an untrained discriminator cannot harm the generator."""
    if step < start:
        return 0.0
    return min(1.0, (step - start + 1) / min(max(start, 1), 1000))
