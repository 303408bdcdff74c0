"""How far what fills a hole is from what was there, over the pixels of the hole alone."""

import torch
from torch import Tensor

from pipeline.data.images.pixels import as_float
from pipeline.evaluation.images import BATCH, ImageSet
from pipeline.perceptual import Perceptual, pair_bytes
from pipeline.runtime.parts import in_parts


def hole_psnr(images: Tensor, originals: Tensor, hole: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image, (B,); of equal ones 100.

    Args:
        images, originals: (B, C, H, W) in [0, 1].
        hole: (H, W) bool, True at the pixels that count.
    """
    mse = (images - originals)[..., hole].pow(2).mean(dim=(1, 2))
    return -10 * mse.clamp(min=1e-10).log10()


@torch.no_grad()
def hole_distances(
    images: ImageSet,
    originals: ImageSet,
    hole: Tensor,
    distance_map: Perceptual,
    device: torch.device,
) -> dict[str, float]:
    """Means over the images of psnr_hole, in dB, and perceptual_hole.

    Args:
        hole: (H, W) bool, True at the pixels that count.
        distance_map: gives the perceptual distance at each pixel (`open_distance_map`).
    """
    hole, psnr, perceptual = hole.to(device), [], []
    for pair in zip(images.batches(BATCH), originals.batches(BATCH), strict=True):
        made, true = (as_float(batch).to(device) for batch in pair)
        psnr.append(hole_psnr(made, true, hole))
        far = in_parts(distance_map, pair_bytes(made.shape[-1]), made, true)
        perceptual.append(far[:, hole].mean(dim=1))
    return {
        "psnr_hole": torch.cat(psnr).mean().item(),
        "perceptual_hole": torch.cat(perceptual).mean().item(),
    }
