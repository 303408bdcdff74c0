"""Measures reconstructions: PSNR and code usage of a tokenizer, and distances between edited and
original images inside the masked region (the hole)."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES
from pipeline.data.images.pixels import as_float, as_uint8
from pipeline.data.images.shards import ImageShards, View
from pipeline.data.microbatches import PIXELS, in_parts
from pipeline.data.ranks import sum_in_order
from pipeline.runtime.batches import BatchWorkers, Maker, tensors_of
from pipeline.tokenizer import Tokenizer
from pipeline.tokenizer.quantizer import code_usage
from pipeline.weights.published import WEIGHTS, load_model

BATCH = 128  # images reconstructed at once
HOLES = 64  # edited images compared at once


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB, from the mean squared error of pixel values in [0, 1]."""
    return 10 * torch.tensor(1 / max(mse, 1e-10)).log10().item()


@torch.no_grad()
def rebuild(model: Tokenizer, images: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Reconstruct images (B, C, H, W) uint8 with a tokenizer. Returns the reconstructions (B, C, H,
    W) uint8, and the sums (2 + codes,) float64 that `quality` takes: sum of mean squared errors,
    number of images, and count of each code."""
    tokens = model.encode(as_float(images).to(device))
    output = as_uint8(model.decode(tokens)).cpu()
    mse = (as_float(output) - as_float(images)).pow(2).mean().item()
    uses = torch.bincount(tokens.flatten().cpu(), minlength=model.config.codebook_size)
    errors = torch.tensor([mse * len(images), len(images)], dtype=torch.float64)
    return output, torch.cat([errors, uses.double()])


def quality(sums: Tensor) -> dict[str, float]:
    """Compute PSNR in dB, code usage (a fraction) and code perplexity. `sums` (2 + codes,) is the
    total, over all batches, of the sums that `rebuild` returns."""
    squared, images = sums[:2].tolist()
    usage, perplexity = code_usage(sums[2:])
    return {"psnr": psnr(squared / images), "code_usage": usage, "code_perplexity": perplexity}


def held_out_quality(
    folder: Path, params: Params, parts: Path, workers: BatchWorkers
) -> dict[str, float]:
    """Compute the reconstruction quality (see `quality`) of a published tokenizer on all validation
    images. Computed batches are saved in the folder `parts`; a killed run resumes from them."""
    count = len(ImageShards(IMAGES, "val"))
    batches = [(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    # Send the model itself: workers on other nodes cannot read this stage's outputs.
    maker = Maker(_open_sums, load_model(folder, "tokenizer"), params)
    name = "tokenizer: validation"
    sums = tensors_of(folder / WEIGHTS, parts, workers, maker, batches, name)["sums"]
    return quality(torch.tensor([sum_in_order(column) for column in sums.T], dtype=torch.float64))


def _open_sums(
    model: Tokenizer, params: Params, device: torch.device
) -> Callable[[int, int], dict[str, Tensor]]:
    view, model = View(ImageShards(IMAGES, "val"), params.data, params.seed), model.to(device)
    # (start, stop) -> sums (1, 2 + codes) of the images in range(start, stop)
    return lambda *part: {"sums": rebuild(model, view.centers(range(*part)), device)[1][None]}


@torch.no_grad()
def hole_distances(
    images: Tensor,
    originals: Tensor,
    hole: Tensor,
    distance_map: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, Tensor]:
    """Compare edited images with the originals, both (B, C, H, W) uint8, inside the masked region
    `hole` (H, W) bool. Returns `psnr_hole` (B,) in dB and `perceptual_hole` (B,), on the CPU. The
    images must be on the device of `distance_map`, which `open_distance_map` returns."""
    count, found = -(-len(images) // HOLES), []
    for pair in zip(images.chunk(count), originals.chunk(count), strict=True):
        made, true = map(as_float, pair)
        far = in_parts(distance_map, PIXELS // made.shape[-2:].numel(), made, true)
        mse = (made - true)[..., hole].pow(2).mean(dim=(1, 2))
        psnr = -10 * mse.clamp(min=1e-10).log10()
        found.append(torch.stack((psnr, far[:, hole].mean(dim=1))))
    psnr, perceptual = torch.cat(found, dim=1).cpu()
    return {"psnr_hole": psnr, "perceptual_hole": perceptual.contiguous()}
