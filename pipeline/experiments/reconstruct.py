"""Figure 10: validation images from a part of their tokens (paper, appendix A)."""

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
from pipeline.data.images.pixels import as_float
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.views import View
from pipeline.decoding import decode, predictor
from pipeline.evaluation.reconstruction import psnr
from pipeline.perceptual import open_perceptual, pair_bytes
from pipeline.runtime.arrays import write_array
from pipeline.runtime.parts import in_parts
from pipeline.runtime.seeds import generator
from pipeline.runtime.workers import Alone, Maker
from pipeline.tokenizer import tokens_to_images
from pipeline.weights.published import load_model

PICTURED = 8
GREY = 128  # of the pixels of a hidden token
MEDIAN = -1  # the "draw" that is the pixel-wise median of all draws


def hide_tokens(count: int, num_tokens: int, ratio: float, seed: int) -> Tensor:
    """(count, num_tokens) bool, True at round(ratio·N) tokens of each image, drawn uniformly. A
    higher ratio hides the same tokens and more."""
    noise = torch.rand(count, num_tokens, generator=generator(seed, "hide"))
    return noise.argsort(dim=1).argsort(dim=1) < round(ratio * num_tokens)


class Reconstructor:
    """The model of a replicate, and the validation images (M, C, H, W) uint8 that it rebuilds."""

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
        self.batches = torch.arange(count).split(params.decoding.batch_size)
        self.tokens = torch.cat([self._encode(chosen) for chosen in self.batches])

    def _encode(self, chosen: Tensor) -> Tensor:
        """Tokens (B, N) int64 of the chosen images."""
        return self.tokenizer.encode(as_float(self.images[chosen]).to(self.device)).flatten(1)

    def hidden(self, ratio: float) -> Tensor:
        """Mask (M, N) of the tokens that are hidden, bool."""
        return hide_tokens(len(self.images), self.params.num_tokens, ratio, self.seed)

    def __call__(self, chosen: Tensor, hidden: Tensor, draw: int) -> Tensor:
        """Sample the hidden tokens of some of the images from the others and the class.

        Args:
            chosen: (B,) indices of images.
            hidden: (B, N) bool; with no token hidden the result is the tokenizer's reconstruction.

        Returns:
            (B, C, H, W) uint8.
        """
        seed = (self.seed, "reconstruct", draw, int(chosen[0]))
        steps = decode(
            predictor(self.model, self.labels[chosen].to(self.device), self.settings),
            self.tokens[chosen.to(self.device)],
            hidden.to(self.device),
            self.settings,
            generator(*seed, device=self.device),
        )
        return tokens_to_images(self.tokenizer, steps[-1].sampled)

    def samples(self, ratio: float) -> list[tuple[Tensor, Tensor, int]]:
        """The arguments for each batch of all images, draw after draw."""
        hidden = self.hidden(ratio)
        draws = range(self.params.reconstruction.draws)
        return [(b, hidden[b], draw) for draw in draws for b in self.batches]

    @torch.no_grad()
    def distances(self, rebuilt: np.ndarray) -> dict[str, float]:
        """PSNR in dB and perceptual distance between images (M, C, H, W) uint8 and the originals:
        mean and standard deviation over the images."""
        values: dict[str, list[float]] = {"psnr": [], "perceptual": []}
        for chosen in self.batches:
            pair = (self.images[chosen], torch.from_numpy(rebuilt[chosen.numpy()]))
            original, image = (as_float(x).to(self.device) for x in pair)
            mse = (original - image).pow(2).mean(dim=(1, 2, 3))
            values["psnr"] += [psnr(value.item()) for value in mse]
            row_bytes = pair_bytes(self.params.data.image_size)
            far = in_parts(self.perceptual, row_bytes, original, image)
            values["perceptual"] += [x.item() for x in far]
        spread: dict[str, Callable[..., Any]] = {"": np.mean, "_std": np.std}
        return {f"{k}{s}": float(f(v)) for k, v in values.items() for s, f in spread.items()}


def reconstruct_hidden(
    params: Params, folders: Mapping[Replicate, Path], workers: Alone
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Rebuild validation images with a share of their tokens hidden.

    Args:
        folders: of each replicate; keeps the samples of the ratios that are finished,
            `<ratio>.npy`, draw after draw (draws · M, C, H, W).

    Returns:
        A row for every replicate, mask ratio and draw, and for the median of the draws (draw -1).
        The distances are means over images: PSNR, too, is of each image and then averaged.
        Pictures of n images at r ratios by the first replicate, uint8: originals (n, H, W, C),
        inputs (r, n, H, W, C) with hidden tokens grey, samples (first draw) and medians of the same
        shape, hidden (r,), the shares of tokens that are: of few tokens, not quite the ratios.
    """
    rows, pictures = [], []
    for replicate, folder in folders.items():
        own, pictured = _rebuild(params, replicate, folder, workers)
        rows += [{"seed": replicate.seed} | row for row in own]
        pictures.append(pictured)
    return rows, pictures[0]


def _rebuild(
    params: Params, replicate: Replicate, folder: Path, workers: Alone
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The rows and the pictures of one replicate."""
    maker = Maker(Reconstructor, params, replicate)
    bench = maker.open(workers.device)
    rows, columns, shares = [], [], []
    for ratio in params.reconstruction.mask_ratios:
        path = folder / f"{ratio}.npy"
        name = f"reconstruct: {ratio:.0%} hidden"
        write_array(path, workers, maker, bench.samples(ratio), name)
        samples = np.load(path, mmap_mode="r").reshape(-1, *bench.images.shape)
        median, hidden = median_image(samples), bench.hidden(ratio)
        shares.append(hidden.float().mean().item())
        for draw, rebuilt in [*enumerate(samples), (MEDIAN, median)]:
            row = {"mask_ratio": ratio, "draw": draw, "images": len(rebuilt), "hidden": shares[-1]}
            rows.append(row | bench.distances(rebuilt))
        inputs = grey_tokens(bench.images[:PICTURED], hidden[:PICTURED])
        columns.append((inputs.numpy(), samples[0, :PICTURED], median[:PICTURED]))
        print(
            f"reconstruct: seed {replicate.seed}, {ratio:.0%} of the tokens hidden, PSNR "
            f"{rows[-2]['psnr']:.1f} dB, of the median {rows[-1]['psnr']:.1f} dB",
            flush=True,
        )
    greyed, drawn, medians = (_channels_last(np.stack(c)) for c in zip(*columns, strict=True))
    return rows, {
        "originals": _channels_last(bench.images[:PICTURED].numpy()),
        "inputs": greyed,
        "samples": drawn,
        "medians": medians,
        "hidden": np.array(shares),
    }


def median_image(samples: np.ndarray) -> np.ndarray:
    """Pixel-wise median (M, C, H, W) uint8 of draws (d, M, C, H, W). For an even d it is the mean
    of the middle two; halves are rounded to even."""
    return np.median(samples, axis=0).round().astype(np.uint8)


def grey_tokens(images: Tensor, hidden: Tensor) -> Tensor:
    """Images (n, C, H, W) uint8 with the pixels of hidden tokens (n, N) grey."""
    side = round(hidden.shape[1] ** 0.5)
    grid = hidden.unflatten(1, (1, side, side)).float()
    return images.masked_fill(F.interpolate(grid, images.shape[-2:]).bool(), GREY)


def _channels_last(images: np.ndarray) -> np.ndarray:
    return np.moveaxis(images, -3, -1)
