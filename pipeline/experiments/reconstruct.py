"""Reconstructs validation images from part of their tokens, for Figure 10 (paper, appendix A)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES, TOKENIZER
from pipeline.config.replicates import Replicate
from pipeline.data.images.pixels import GREY, as_float
from pipeline.data.images.shards import ImageShards, View
from pipeline.data.microbatches import PIXELS, in_parts
from pipeline.data.seeds import generator
from pipeline.decoding.iterative import decode, predictor
from pipeline.evaluation.reconstruction import psnr
from pipeline.experiments.rows import Row
from pipeline.perceptual import open_perceptual
from pipeline.runtime.batches import BatchWorkers, Maker, load_tensors, save_tensors, write_files
from pipeline.tokenizer import tokens_to_images
from pipeline.weights.published import load_model

PICTURED = 8  # validation images in the figure
MEDIAN = -1  # in results, the draw number of the pixel-wise median of all draws


def hide_tokens(count: int, num_tokens: int, ratio: float, seed: int) -> Tensor:
    """Draw masks (count, num_tokens) bool, True at round(ratio · num_tokens) random tokens of each
    image. Tokens hidden at a lower ratio are also hidden at a higher ratio."""
    noise = torch.rand(count, num_tokens, generator=generator(seed, "hide"))
    return noise.argsort(dim=1).argsort(dim=1) < round(ratio * num_tokens)


class Reconstructor:
    """Reconstructs validation images from part of their tokens, with one seed's model."""

    def __init__(self, params: Params, replicate: Replicate, device: torch.device):
        self.params, self.seed, self.device = params, replicate.seed, device
        self.settings = params.decoding_settings(iterations=params.reconstruction.iterations)
        self.model = load_model(replicate.folder, "transformer", device)
        self.tokenizer = load_model(TOKENIZER, "tokenizer", device)
        classifier = load_model(CLASSIFIER, "classifier", device)
        self.perceptual = open_perceptual(params.tokenizer.perceptual, classifier, device)
        view = View(ImageShards(IMAGES, "val"), params.data, params.seed)
        count = min(params.reconstruction.images, len(view.images))
        self.images = view.centers(range(count))
        self.labels = torch.from_numpy(view.images.labels[:count])

    def __call__(self, chosen: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        """Sample the hidden tokens of B images `reconstruction.draws` times, and compare the
        decoded images with the originals.

        Args:
            chosen: indices (B,) of the images.
            hidden: mask (B, N) bool, True at hidden tokens.

        Returns:
            A dict of tensors. mse and perceptual (B, draws + 1): distances from the originals with
            pixels in [0, 1]; one column per draw, and a last column for the draws' median image.
            samples and medians (b, C, H, W) uint8: the first draw and the median image, for the b
            chosen images with an index below `PICTURED`.
        """
        draws = range(self.params.reconstruction.draws)
        tokens = self.tokenizer.encode(as_float(self.images[chosen]).to(self.device)).flatten(1)
        samples = torch.stack([self.draw(chosen, tokens, hidden, draw) for draw in draws])
        median = median_image(samples)
        found = [self._distances(chosen, rebuilt) for rebuilt in (*samples, median)]
        mse, perceptual = (torch.stack(each, dim=1) for each in zip(*found, strict=True))
        pictured = chosen < PICTURED
        return {
            "mse": mse,
            "perceptual": perceptual,
            "samples": samples[0, pictured],
            "medians": median[pictured],
        }

    def draw(self, chosen: Tensor, tokens: Tensor, hidden: Tensor, draw: int) -> Tensor:
        """Sample the hidden tokens of the chosen images once, given the other tokens and the class.
        Returns the decoded images (B, C, H, W) uint8."""
        seed = (self.seed, "reconstruct", draw, int(chosen[0]))
        steps = decode(
            predictor(self.model, self.labels[chosen].to(self.device), self.settings),
            tokens,
            hidden.to(self.device),
            self.settings,
            generator(*seed, device=self.device),
        )
        return tokens_to_images(self.tokenizer, list(steps)[-1].sampled)

    @torch.no_grad()
    def _distances(self, chosen: Tensor, rebuilt: Tensor) -> tuple[Tensor, Tensor]:
        """MSE and perceptual distance (B,) between images (B, C, H, W) uint8 and the originals."""
        original, image = (as_float(x).to(self.device) for x in (self.images[chosen], rebuilt))
        mse = (original - image).pow(2).mean(dim=(1, 2, 3))
        rows = PIXELS // image.shape[-2:].numel()
        return mse.cpu(), in_parts(self.perceptual, rows, original, image).cpu()


def reconstruct_hidden(
    params: Params, folders: Mapping[Replicate, Path], workers: BatchWorkers
) -> tuple[list[Row], dict[str, np.ndarray]]:
    """Hide a share of the tokens of validation images, and reconstruct the images. The results of
    each mask ratio are stored as `<ratio>.safetensors` in the run directories `folders`, one per
    replicate (one seed's model).

    Returns:
        A tuple of rows and pictures. There is a row for every seed, mask ratio and draw (sample);
        draw -1 is the draws' median image. PSNR and perceptual distance are means over images. The
        pictures are a dict of the first seed's uint8 arrays for n images and r ratios: originals
        (n, H, W, C); inputs (hidden tokens in grey), samples (first draws) and medians, each
        (r, n, H, W, C). The dict also has hidden (r,): the real shares of hidden tokens, which
        differ from the ratios by rounding.
    """
    rows, pictures = list[Row](), list[dict[str, np.ndarray]]()
    for replicate, folder in folders.items():
        maker, name = Maker(Reconstructor, params, replicate), f"reconstruct: seed {replicate.seed}"
        own: Reconstructor = maker.open(workers.device)
        shape = len(own.images), params.num_tokens
        ratios = params.reconstruction.mask_ratios
        masks = {ratio: hide_tokens(*shape, ratio, replicate.seed) for ratio in ratios}
        files = {ratio: folder / f"{ratio}.safetensors" for ratio in masks}
        rows_of = torch.arange(len(own.images)).split(params.decoding.batch_size)
        batches = {
            files[ratio]: [(chosen.clone(), mask[chosen]) for chosen in rows_of]
            for ratio, mask in masks.items()
        }
        write_files(batches, workers, maker, name, save_tensors)
        found = {ratio: load_tensors(file) for ratio, file in files.items()}
        hidden = {ratio: mask.float().mean().item() for ratio, mask in masks.items()}
        for ratio, tensors in found.items():
            of_draws = list(zip(tensors["mse"].T, tensors["perceptual"].T, strict=True))
            for draw, distances in zip((*range(len(of_draws) - 1), MEDIAN), of_draws, strict=True):
                row = {"seed": replicate.seed, "mask_ratio": ratio, "draw": draw}
                row |= {"images": len(own.images), "hidden": hidden[ratio]}
                rows.append(row | _over_images(*distances))
            print(f"{name}, tokens hidden {ratio:.0%}: PSNR {rows[-1]['psnr']:.1f} dB", flush=True)
        shown = own.images[:PICTURED]
        inputs = [grey_tokens(shown, mask[:PICTURED]) for mask in masks.values()]
        images = {
            "originals": shown,
            "inputs": torch.stack(inputs),
            "samples": torch.stack([tensors["samples"] for tensors in found.values()]),
            "medians": torch.stack([tensors["medians"] for tensors in found.values()]),
        }
        arrays = {key: value.movedim(-3, -1).numpy() for key, value in images.items()}
        pictures.append(arrays | {"hidden": np.array(list(hidden.values()))})
    return rows, pictures[0]


def _over_images(mse: Tensor, perceptual: Tensor) -> dict[str, float]:
    """From the MSE (M,) and perceptual distances (M,) of M images, compute the means `psnr` (in dB)
    and `perceptual`, and the standard deviations `psnr_std` and `perceptual_std`."""
    values = {"psnr": [psnr(each) for each in mse.tolist()], "perceptual": perceptual.tolist()}
    spread: dict[str, Callable[..., Any]] = {"": np.mean, "_std": np.std}
    return {f"{k}{s}": float(f(v)) for k, v in values.items() for s, f in spread.items()}


def median_image(samples: Tensor) -> Tensor:
    """Pixel-wise median (M, C, H, W) uint8 of draws (d, M, C, H, W). For even d, the median is the
    mean of the middle two values, rounded half to even."""
    # Image by image, since NumPy's float64 medians of a batch take eight times the memory.
    medians = [np.median(draws, axis=0).round() for draws in samples.numpy().swapaxes(0, 1)]
    return torch.from_numpy(np.stack(medians).astype(np.uint8))


def grey_tokens(images: Tensor, hidden: Tensor) -> Tensor:
    """Paint hidden tokens' pixels grey in images (n, C, H, W) uint8; `hidden` is (n, N) bool."""
    side = round(hidden.shape[1] ** 0.5)
    grid = hidden.unflatten(1, (1, side, side)).float()
    return images.masked_fill(F.interpolate(grid, images.shape[-2:]).bool(), GREY)
