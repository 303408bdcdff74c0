"""Editing (paper, section 4.3): decoding starts with a mask that covers only some of the tokens.

Inpainting, outpainting and class-conditional editing all call `edit`, with different masks and
labels. A pixel mask is bool: True marks unknown pixels, which `edit` generates. A token grid is
(B, h, w), and f is the tokenizer's downsampling factor, in pixels per token.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from pipeline.data.images.pixels import as_float
from pipeline.data.seeds import generator, mix
from pipeline.decoding.iterative import decode, predictor
from pipeline.decoding.settings import DecodingSettings
from pipeline.tokenizer import Tokenizer, tokens_to_images
from pipeline.transformer import MaskGitTransformer

Side = Literal["left", "right", "top", "bottom"]
# side -> (axis, whether the side is at the axis's beginning); in the order of `F.pad`.
SIDES: dict[Side, tuple[int, bool]] = {
    "left": (-1, True),
    "right": (-1, False),
    "top": (-2, True),
    "bottom": (-2, False),
}


class Edited(NamedTuple):
    """The result of an edit, on the CPU."""

    tokens: Tensor  # (B, h, w) int64: the full sample
    unknown: Tensor  # (B, h, w) bool: the tokens that were generated
    canvas: Tensor  # (B, C, H, W) uint8: the decoded sample; known tokens are reconstructed
    composite: Tensor  # (B, C, H, W) uint8: the canvas blended into the original images


def box_mask(size: tuple[int, int], top: int, left: int, height: int, width: int) -> Tensor:
    """The pixel mask (H, W) of a box in an image of `size` (H, W). All arguments are in pixels."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


def center_mask(size: tuple[int, int], fraction: float) -> Tensor:
    """The pixel mask of a centred box in an image of the given size (H, W). The box's sides are
    `fraction` of the image's sides (0.5 in Table 2)."""
    height, width = round(fraction * size[0]), round(fraction * size[1])
    return box_mask(size, (size[0] - height) // 2, (size[1] - width) // 2, height, width)


def outpaint_mask(size: tuple[int, int], side: Side, fraction: float) -> Tensor:
    """The pixel mask (H, W) of a strip along the edge `side` that covers a `fraction` of the image.
    (Table 2 outpaints the right half.)"""
    axis, before = SIDES[side]
    count = round(fraction * size[axis])
    mask = torch.zeros(size, dtype=torch.bool)
    mask.narrow(axis, 0 if before else size[axis] - count, count).fill_(True)
    return mask


def _dilate(mask: Tensor, radius: int) -> Tensor:
    return F.max_pool2d(mask[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0]


def pixel_mask_to_tokens(mask: Tensor, grid: int, dilate: int) -> Tensor:
    """The mask (B, grid, grid) bool of the tokens to generate: the tokens that contain an unknown
    pixel, and their neighbours up to `dilate` rows and columns away (1 in the authors' code).

    The authors' code supports only boxes. If a box's sides lie on token borders, this function
    gives the same tokens as theirs; otherwise, theirs can miss the last row or column.

    Args:
        mask: pixel mask (B, H, W) bool; H and W are multiples of `grid`.
    """
    height, width = mask.shape[-2:]
    tokens = F.max_pool2d(mask[:, None].float(), (height // grid, width // grid))[:, 0]
    return _dilate(tokens, dilate).bool()


def feather_weight(mask: Tensor, feather: int) -> Tensor:
    """Blending weight of the generated image: 1 on the mask, 0 beyond `feather` pixels from it.

    The mask is grown by `feather` // 2 pixels, and then blurred with a Gaussian kernel whose radius
    is the rest of `feather`, so that the weight falls to 0 outside the mask. (The authors' code
    blurs the dilated token mask with a σ of about one token. As a result, hidden pixels show
    through at the mask's border, and known pixels far from it are mixed with reconstructions.)

    Returns:
        (B, H, W) float32 for a mask (B, H, W) bool; exactly 0 where the mask is more than `feather`
        rows or columns away.
    """
    grown_by = feather // 2
    radius = feather - grown_by
    offset = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offset / max(radius / 2, 1)) ** 2)
    kernel /= kernel.sum()
    grown = _dilate(mask.float(), grown_by)
    padded = F.pad(grown[:, None], [radius] * 4, mode="replicate")[:, 0]
    # Multiply windows by the kernel, because some convolution algorithms turn exact zeros into
    # small numbers.
    rows = padded.unfold(-1, len(kernel), 1) @ kernel
    blurred = rows.unfold(-2, len(kernel), 1) @ kernel
    return torch.where(mask, 1.0, blurred.clamp(max=1))


def fill_unknown(images: Tensor, mask: Tensor) -> Tensor:
    """Fill every unknown pixel with the value of the nearest known pixel, or with 0 if all pixels
    are unknown.

    The encoder has a wide receptive field and normalizes over the whole image, so pixels under the
    mask change known tokens too. With the right half of MNIST digits hidden, this fill leaves 80%
    of the known tokens unchanged; filling with the known pixels' mean leaves 77%, with zeros 75%.

    Args:
        images: images (B, C, H, W) on the CPU.
        mask: pixel mask (H, W) bool of all images.
    """
    if mask.all():
        return torch.zeros_like(images)
    nearest = distance_transform_edt(mask.numpy(), return_distances=False, return_indices=True)
    rows, columns = torch.from_numpy(nearest).long()
    return images[..., rows, columns]


def edit(
    model: MaskGitTransformer,
    tokenizer: Tokenizer,
    images: Tensor,
    mask: Tensor,
    labels: Tensor,
    settings: DecodingSettings,
    *,
    seed: int,
    dilate: int,
    feather: int,
) -> Edited:
    """Generate the masked part of images for given class labels, and blend it into the images.

    The masked image is tokenized, as in the paper's inpainting, so the result does not depend on
    the pixels under the mask. (The authors' code only edits by class: it tokenizes the
    whole image and starts at the third of 12 iterations. This function runs all T iterations.)

    Args:
        images: images (B, C, H, W) uint8 on the CPU, of the size that the model generates.
        mask: pixel mask (H, W) bool of all images.
        labels: class labels (B,) int64 of the content to generate: each image's own class, or
            another class (Figure 6).
        dilate: width in tokens of a border around the mask. Tokens in the border are generated too,
            for the blend. On a small grid, the authors' width of 1 can leave no known token.
        feather: width in pixels of the blend around the mask.

    Returns:
        The composite and intermediate results. On the mask, the composite is the decoded sample;
        more than `feather` pixels away from the mask, the composite is bit-identical to the image.
    """
    grid = math.isqrt(model.config.num_tokens)
    unknown = pixel_mask_to_tokens(mask[None], grid, dilate).expand(len(images), -1, -1)
    device = model.device
    known_tokens = tokenizer.encode(as_float(fill_unknown(images, mask)).to(device))
    steps = decode(
        predictor(model, labels.to(device), settings),
        known_tokens.flatten(1),
        unknown.flatten(1).to(device),
        settings,
        generator(seed, "edit", settings.schedule, settings.iterations, device=device),
    )
    tokens = list(steps)[-1].sampled
    canvas = tokens_to_images(tokenizer, tokens)
    weight = feather_weight(mask[None], feather)[:, None]
    # lerp is exact at weights 0 and 1.
    composite = torch.lerp(images.float(), canvas.float(), weight).round().to(torch.uint8)
    return Edited(tokens.view_as(known_tokens).cpu(), unknown, canvas, composite)


def outpaint_beyond(
    model: MaskGitTransformer,
    tokenizer: Tokenizer,
    images: Tensor,
    labels: Tensor,
    settings: DecodingSettings,
    *,
    side: Side,
    pixels: int,
    overlap: int,
    seed: int,
    dilate: int,
    feather: int,
) -> Tensor:
    """Extend images beyond a side by sliding a window of the model's image size across the side.

    In each step, the window moves by its size minus `overlap` (in the last step, by the remaining
    pixels), and `edit` generates the unknown pixels in the window.

    Args:
        images: images (B, C, H, W) uint8, such as an earlier result. Along the extended axis, they
            are at least as large as the model's images; along the other axis, exactly as large.
        pixels: number of pixels to extend by.
        overlap: minimum number of known pixels in a window along the extended axis, from 1 to the
            window's size - 1. The model sees only the window's known tokens that are more than
            `dilate` tokens away from the new pixels.
        settings, dilate, feather: as for `edit`.

    Returns:
        The extended images, (B, C, H, W + pixels) or (B, C, H + pixels, W). More than `feather`
        pixels away from the extended side, the given images are unchanged.
    """
    axis, before = SIDES[side]
    size = tokenizer.config.downsampling * math.isqrt(model.config.num_tokens)
    extent, length = images.shape[axis], images.shape[axis] + pixels
    wide = F.pad(images, [pixels if name == side else 0 for name in SIDES])
    borders: dict[str, Any] = {"dilate": dilate, "feather": feather}
    for number, known in enumerate(range(extent, length, size - overlap)):
        # Positions count from the image's opposite side; `known` is the number of known pixels.
        end = min(known + size - overlap, length)
        window = wide.narrow(axis, length - end if before else end - size, size)
        mask = outpaint_mask((size, size), side, (end - known) / size)
        draw = mix(seed, "window", number)
        edited = edit(model, tokenizer, window, mask, labels, settings, seed=draw, **borders)
        window.copy_(edited.composite)
    return wide
