"""The tokenizer's discriminators and the adversarial losses, against closed forms and the values
that the authors' code computes."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.tokenizer.discriminator import (
    PatchDiscriminator,
    StyleGanDiscriminator,
    adversarial_ramp,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)
from tests.release import FOLDER
from tests.tiny_networks import seeded


def release_weights() -> dict[str, torch.Tensor]:
    """Return the weights of the reference data, from its own formula."""
    shapes = json.loads((FOLDER / "discriminator_parameters.json").read_text())
    weights = {}
    for k, (path, shape) in enumerate(sorted(shapes.items())):
        u = np.sin(12.9898 * np.arange(math.prod(shape)) + 78.233 * k) * 43758.5453
        u = u - np.floor(u) - 0.5
        u *= math.sqrt(24 / math.prod(shape[:-1])) if path.endswith("kernel") else 0.1
        weights[path] = torch.from_numpy(u.astype(np.float32).reshape(shape))
    return weights


def ours(path: str, weight: torch.Tensor) -> tuple[str, torch.Tensor]:
    """Return our name and layout of one of the release's weights."""
    *parents, layer, kind = path.removeprefix("params/").split("/")
    names = {"Conv_0": "stem", "Conv_1": "conv", "Dense_0": "hidden", "Dense_1": "out"}
    if parents:
        names = {"Conv_0": "conv1", "Conv_1": "shortcut", "Conv_2": "conv2"}
        names[layer] = f"blocks.{parents[0].removeprefix('ResBlock_')}.{names[layer]}"
    if weight.ndim == 4:
        weight = weight.permute(3, 2, 0, 1)
    elif names[layer] == "hidden" and kind == "kernel":  # of maps with their channels last
        weight = weight.view(4, 4, -1, weight.shape[1]).permute(3, 2, 0, 1).flatten(1)
    elif weight.ndim == 2:
        weight = weight.T
    return f"{names[layer]}.{'weight' if kind == 'kernel' else kind}", weight


def nchw(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).movedim(-1, 1)


def test_stylegan_and_its_losses_are_the_releases():
    discriminator = StyleGanDiscriminator(channels=3, filters=512, side=32)
    discriminator.load_state_dict(dict(ours(*item) for item in release_weights().items()))
    with np.load(FOLDER / "discriminator_expected.npz") as arrays:
        wanted = dict(arrays)
    for images, logits in (("image", "logit"), ("fake_image", "fake_logit")):
        computed = discriminator(nchw(wanted[images])).detach().flatten(1).numpy()
        np.testing.assert_allclose(computed, wanted[logits], rtol=1e-3)
    real, fake = (discriminator(nchw(wanted[name])) for name in ("image", "fake_image"))
    losses = {
        "d_loss_nonsaturating": discriminator_loss(real, fake),
        "g_loss_nonsaturating": generator_loss(fake),
        "r1_cost10": 10 * r1_penalty(discriminator, nchw(wanted["image"])),
    }
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(wanted[name].item(), rel=1e-3), name


@pytest.mark.parametrize(
    ("filters", "side", "channels"),
    [  # the release's table, with its channel multiplier of 1 and of 2
        (64, 256, [64, 128, 256, 512, 512, 512, 512]),
        (8, 4, [8]),
    ],
)
def test_stylegans_channels_double_with_each_halving(filters, side, channels):
    with torch.device("meta"):
        network = StyleGanDiscriminator(3, filters, side)
        maps, seen = network.stem(torch.empty(1, 3, side, side)), []
        for block in [nn.Identity(), *network.blocks]:
            maps = block(maps)
            seen.append((maps.shape[1], maps.shape[2]))
        assert network.forward(torch.empty(2, 3, side, side)).shape == (2, 1, 1, 1)
    assert seen == [(width, side >> i) for i, width in enumerate(channels)]


def test_stylegan_starts_as_flax_does():
    """Weights are uniform with variance 2 / (fan in + fan out); biases are zero."""
    torch.manual_seed(0)
    network = StyleGanDiscriminator(3, 64, 16)
    for name, weight in network.named_parameters():
        if weight.ndim == 1:
            assert not weight.any(), name
        elif weight.numel() > 1000:
            fans = (weight.shape[0] + weight.shape[1]) * weight[0, 0].numel()
            assert weight.abs().max().item() == pytest.approx((6 / fans) ** 0.5, rel=0.02), name
            assert weight.var().item() == pytest.approx(2 / fans, rel=0.1), name


def test_a_patch_has_26_pixels():
    images = torch.rand(1, 1, 64, 64, generator=seeded(4)).requires_grad_()
    PatchDiscriminator(1, 4)(images)[0, 0, 8, 8].backward()
    rows, columns = images.grad[0, 0].nonzero(as_tuple=True)
    assert [(x.max() - x.min() + 1).item() for x in (rows, columns)] == [26, 26]


def test_r1_of_a_linear_discriminator_and_its_gradient():
    weight = torch.randn(3, 4, 4, generator=seeded(8)).requires_grad_()

    def discriminator(images):
        """Returns patch logits whose mean is w·x + 1."""
        logit = (images * weight).sum(dim=(1, 2, 3)) + 1
        return logit[:, None, None, None].expand(-1, 1, 2, 2)

    penalty = r1_penalty(discriminator, torch.rand(5, 3, 4, 4))
    assert penalty.item() == pytest.approx(weight.pow(2).sum().item(), rel=1e-5)
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * weight)


def test_adversarial_ramp():
    assert [adversarial_ramp(s, 4) for s in (0, 3, 4, 5, 7, 8, 100)] == [0, 0, 0.25, 0.5, 1, 1, 1]
    assert adversarial_ramp(0, 0) == 1
    assert adversarial_ramp(50_499, 50_000) == pytest.approx(0.5)  # at most 1,000 steps
