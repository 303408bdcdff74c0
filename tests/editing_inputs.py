"""Tiny models with random weights, and images and masks for them to edit."""

import functools

import torch
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.decoding.settings import DecodingSettings
from pipeline.editing import box_mask
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig

F_PIXELS, CODES, CLASSES = 2, 11, 3
DECODING = DecodingSettings(iterations=3, schedule="cosine", choice_temperature=4.5)


@functools.cache
def models(grid: int) -> tuple[MaskGitTransformer, Tokenizer]:
    """Random weights, scaled up so that what is predicted depends on the input."""
    torch.manual_seed(grid)
    config = TransformerConfig(
        grid**2, CODES, CLASSES, layers=2, hidden=16, heads=2, mlp=32, dropout=0.1
    )
    transformer = MaskGitTransformer(config).eval().requires_grad_(False)
    for weight in transformer.parameters():
        if weight.ndim == 2:
            weight.mul_(20)
    tokenizer = Tokenizer(TokenizerConfig(3, 32, (2, 2), 1, 8, CODES))
    torch.nn.init.normal_(tokenizer.quantizer.codebook)
    torch.nn.init.constant_(tokenizer.decoder.out.bias, 0.5)
    return transformer, tokenizer.eval().requires_grad_(False)


def random_images(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def distance(mask: torch.Tensor) -> torch.Tensor:
    """Return each pixel's Chebyshev distance (H, W) from the mask."""
    if not mask.any():
        return torch.full(mask.shape, 10**6)
    return torch.from_numpy(ndimage.distance_transform_cdt(~mask.numpy(), "chessboard"))


@st.composite
def masks(draw, grid: int, batch: int = 1) -> torch.Tensor:
    """Draw masks (B, H, W), each of them empty, full, a box or random pixels."""
    side = grid * F_PIXELS
    rows = []
    for _ in range(batch):
        kind = draw(st.sampled_from(["empty", "whole", "box", "scatter"]))
        if kind == "box":
            top, left = draw(st.integers(0, side - 1)), draw(st.integers(0, side - 1))
            height, width = draw(st.integers(1, side - top)), draw(st.integers(1, side - left))
            rows.append(box_mask((side, side), top, left, height, width))
        else:
            share = {"empty": 0.0, "whole": 1.0, "scatter": draw(st.floats(0, 1))}[kind]
            noise = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
            rows.append(torch.rand(side, side, generator=noise) < share)
    return torch.stack(rows)
