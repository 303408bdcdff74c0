"""Quality of reconstructions: PSNR and code usage of a tokenizer, and distances from the originals
over the pixels of a hole."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES
from pipeline.data.images.pixels import as_float, as_uint8
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.views import View
from pipeline.data.microbatches import PIXELS, in_parts
from pipeline.data.ranks import sum_in_order
from pipeline.runtime.batches import BatchWorkers, Maker, tensors_of
from pipeline.tokenizer import Tokenizer
from pipeline.tokenizer.quantizer import code_usage
from pipeline.weights.published import WEIGHTS, load_model

BATCH = 128  # images reconstructed at once
HOLES = 64  # images compared at once over a hole


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB, for images in [0, 1]."""
    return 10 * torch.tensor(1 / max(mse, 1e-10)).log10().item()


class Reconstruction:
    """Reconstructs batch after batch of images, and measures PSNR and code usage over them all."""

    def __init__(self, model: Tokenizer, device: torch.device):
        self.model, self.device = model, device
        self._counts = torch.zeros(model.config.codebook_size, dtype=torch.long)
        self._squared, self._images = 0.0, 0

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Reconstructions of images, both (B, C, H, W) uint8 on the CPU."""
        tokens = self.model.encode(as_float(images).to(self.device))
        output = as_uint8(self.model.decode(tokens)).cpu()
        mse = (as_float(output) - as_float(images)).pow(2).mean().item()
        self._squared += mse * len(images)
        self._images += len(images)
        self._counts += torch.bincount(tokens.flatten().cpu(), minlength=len(self._counts))
        return output

    def sums(self) -> Tensor:
        """Over all images so far, (2 + codes,) float64: of the mean squared error of each, of the
        images, and of the uses of each code."""
        own = torch.tensor([self._squared, self._images], dtype=torch.float64)
        return torch.cat([own, self._counts.double()])

    def metrics(self) -> dict[str, float]:
        """`quality` of all images so far."""
        return quality(self.sums())


def quality(sums: Tensor) -> dict[str, float]:
    """psnr in dB, code_usage (a fraction) and code_perplexity from a `Reconstruction`'s sums."""
    squared, images = sums[:2].tolist()
    usage, perplexity = code_usage(sums[2:])
    return {"psnr": psnr(squared / images), "code_usage": usage, "code_perplexity": perplexity}


class HeldOutSums:
    """A tokenizer, and the validation images that it rebuilds."""

    def __init__(self, model: Tokenizer, params: Params, device: torch.device):
        self.model, self.device = model.to(device), device
        self.view = View(ImageShards(IMAGES, "val"), params.data, params.seed)

    def __call__(self, start: int, stop: int) -> dict[str, Tensor]:
        """A `Reconstruction`'s sums of the images from `start` to before `stop`, (1, 2 + codes)."""
        reconstruction = Reconstruction(self.model, self.device)
        reconstruction(self.view.centers(range(start, stop)))
        return {"sums": reconstruction.sums()[None]}


def held_out_quality(
    folder: Path, params: Params, parts: Path, workers: BatchWorkers
) -> dict[str, float]:
    """`quality` of a published tokenizer on all validation images.

    Args:
        parts: a folder for what a killed run goes on with.
    """
    count = len(ImageShards(IMAGES, "val"))
    batches = [(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    # The model itself: workers on other nodes do not see what this stage has made.
    maker = Maker(HeldOutSums, load_model(folder, "tokenizer"), params)
    name = "tokenizer: validation"
    sums = tensors_of(folder / WEIGHTS, parts, workers, maker, batches, name)["sums"]
    return quality(torch.tensor([sum_in_order(column) for column in sums.T], dtype=torch.float64))


@torch.no_grad()
def hole_distances(
    images: Tensor,
    originals: Tensor,
    hole: Tensor,
    distance_map: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, Tensor]:
    """The distances of edited images from the originals over the pixels of a hole: psnr_hole in dB
    and perceptual_hole of each image, (B,), on the CPU.

    Args:
        images, originals: (B, C, H, W) uint8, on the device of the distance.
        hole: (H, W) bool, True at the pixels that count.
        distance_map: gives the perceptual distance at each pixel, (B, H, W), of two image batches
            in [0, 1] (`pipeline.perceptual`).
    """
    count, found = -(-len(images) // HOLES), []
    for pair in zip(images.chunk(count), originals.chunk(count), strict=True):
        made, true = map(as_float, pair)
        far = in_parts(distance_map, PIXELS // made.shape[-2:].numel(), made, true)
        mse = (made - true)[..., hole].pow(2).mean(dim=(1, 2))
        psnr = -10 * mse.clamp(min=1e-10).log10()
        found.append(torch.stack((psnr, far[:, hole].mean(dim=1))))
    psnr, perceptual = torch.cat(found, dim=1).cpu()
    return {"psnr_hole": psnr, "perceptual_hole": perceptual.contiguous()}
