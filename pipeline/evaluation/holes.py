"""How far what fills a hole is from what was there, over the pixels of the hole alone."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER
from pipeline.data.images.pixels import as_float
from pipeline.evaluation.feature_files import PART
from pipeline.evaluation.images import BATCH, ArrayImages
from pipeline.perceptual import Perceptual, open_distance_map, pair_bytes
from pipeline.runtime.arrays import write_array
from pipeline.runtime.parts import in_parts
from pipeline.runtime.workers import Alone, Maker
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
    """Compares images with the originals.

    Args:
        distance_map: gives the perceptual distance at each pixel (`open_distance_map`).
    """

    def __init__(self, originals: ArrayImages, distance_map: Perceptual, device: torch.device):
        self.originals, self.distance_map, self.device = originals, distance_map, device

    def __call__(self, images: ArrayImages, hole: Tensor, start: int, stop: int) -> Tensor:
        """PSNR in dB and perceptual distance, (B, 2), of the images from `start` to before `stop`.

        Args:
            hole: (H, W) bool, True at the pixels that count.
        """
        hole, firsts = hole.to(self.device), range(start, stop, BATCH)
        ends = [(first, min(first + BATCH, stop)) for first in firsts]
        return torch.cat([self._distances(images.read(*of), hole, *of) for of in ends]).cpu()

    @torch.no_grad()
    def _distances(self, images: Tensor, hole: Tensor, start: int, stop: int) -> Tensor:
        pair = (images, self.originals.read(start, stop))
        made, true = (as_float(batch).to(self.device) for batch in pair)
        far = in_parts(self.distance_map, pair_bytes(made.shape[-1]), made, true)
        return torch.stack((hole_psnr(made, true, hole), far[:, hole].mean(dim=1)), dim=1)


def open_distances(originals: ArrayImages, params: Params, device: torch.device) -> HoleDistances:
    """`HoleDistances` with the perceptual network of the tokenizer's params."""
    classifier = load_model(CLASSIFIER, "classifier", device)
    distance_map = open_distance_map(params.tokenizer.perceptual, classifier, device)
    return HoleDistances(originals, distance_map, device)


def hole_distances(
    images: ArrayImages, hole: Tensor, maker: Maker, workers: Alone, path: Path
) -> dict[str, float]:
    """Means over the images of psnr_hole, in dB, and perceptual_hole.

    Args:
        hole: (H, W) bool, True at the pixels that count.
        maker: opens `HoleDistances`.
        path: an .npy, where the distances lie until all are there.
    """
    starts = range(0, len(images), PART)
    batches = [(images, hole, start, min(start + PART, len(images))) for start in starts]
    write_array(path, workers, maker, batches, "edit: distances from the originals")
    psnr, perceptual = torch.from_numpy(np.ascontiguousarray(np.load(path).T))
    path.unlink()
    return {"psnr_hole": psnr.mean().item(), "perceptual_hole": perceptual.mean().item()}
