"""How far what fills a hole is from what was there, over the pixels of the hole alone."""

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER
from pipeline.data.images.pixels import as_float
from pipeline.data.microbatches import PIXELS, in_parts
from pipeline.evaluation.images import BATCH
from pipeline.perceptual import Perceptual, open_distance_map
from pipeline.weights.published import load_model


def hole_psnr(images: Tensor, originals: Tensor, hole: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image, (B,); of equal ones 100.

    Args:
        images, originals: (B, C, H, W) in [0, 1].
        hole: (H, W) bool, True at the pixels that count.
    """
    mse = (images - originals)[..., hole].pow(2).mean(dim=(1, 2))
    return -10 * mse.clamp(min=1e-10).log10()


class HoleDistances:
    """Compares images with the originals, pixel by pixel.

    Args:
        distance_map: gives the perceptual distance at each pixel (`open_distance_map`).
    """

    def __init__(self, distance_map: Perceptual, device: torch.device):
        self.distance_map, self.device = distance_map, device

    @torch.no_grad()
    def __call__(self, images: Tensor, originals: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """psnr_hole, in dB, and perceptual_hole of each image, (B,), on the CPU.

        Args:
            images, originals: (B, C, H, W) uint8.
            hole: (H, W) bool, True at the pixels that count.
        """
        shares = -(-len(images) // BATCH)
        pairs = zip(images.chunk(shares), originals.chunk(shares), strict=True)
        found = [self._distances(*pair, hole.to(self.device)) for pair in pairs]
        psnr, perceptual = (column.contiguous() for column in torch.cat(found).cpu().T)
        return {"psnr_hole": psnr, "perceptual_hole": perceptual}

    def _distances(self, images: Tensor, originals: Tensor, hole: Tensor) -> Tensor:
        """(B, 2)"""
        made, true = (as_float(batch).to(self.device) for batch in (images, originals))
        far = in_parts(self.distance_map, PIXELS // made.shape[-2:].numel(), made, true)
        return torch.stack((hole_psnr(made, true, hole), far[:, hole].mean(dim=1)), dim=1)


def open_distances(params: Params, device: torch.device) -> HoleDistances:
    """`HoleDistances` with the perceptual network of the tokenizer's params."""
    classifier = load_model(CLASSIFIER, "classifier", device)
    distance_map = open_distance_map(params.tokenizer.perceptual, classifier, device)
    return HoleDistances(distance_map, device)
