"""Patch discriminator and the non-saturating GAN losses with R1 (release's tokenizer recipe)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Discriminator(nn.Module):
    """Strided convolutions to a map of real/fake logits, one a patch."""

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


def generator_loss(fake_logits: Tensor) -> Tensor:
    """-log D(fake): non-saturating."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log D(real) - log(1 - D(fake))."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """½‖∇D(x)‖² (Mescheder et al. 2018) at real images (B, C, H, W), mean over the batch."""
    real = real.detach().requires_grad_()
    logits = discriminator(real)
    (gradient,) = torch.autograd.grad(logits.mean(dim=(1, 2, 3)).sum(), real, create_graph=True)
    return 0.5 * gradient.pow(2).sum(dim=(1, 2, 3)).mean()


def adversarial_ramp(step: int, start: int) -> float:
    """Weight in [0, 1] of the adversarial loss: 0 before `start`, then linear over as many steps
    again (at most 1,000), so that a discriminator fresh from its initialisation cannot wreck the
    generator."""
    if step < start:
        return 0.0
    return min(1.0, (step - start + 1) / min(max(start, 1), 1000))
