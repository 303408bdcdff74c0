"""Arrays behind the pictures of Table 1's models: class by class (Figure 5), iteration by iteration
(Figure 2), and the training images nearest to samples, which show whether the model memorised."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, SAMPLES, TOKENIZER, TRANSFORMER
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.views import View
from pipeline.decoding import generate
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.images import ArrayImages, CenterCrops
from pipeline.runtime.files import write_npz
from pipeline.runtime.pictures import grid_picture, save_picture
from pipeline.sampling import balanced_labels
from pipeline.tokenizer import tokens_to_images
from pipeline.weights.published import load_model

CLASSES = 10  # pictured
PER_CLASS = 10
DECODED = 4  # samples whose every iteration is kept
NEIGHBOURS = 5  # training images beside each sample
COMPARED = 10  # samples that are shown beside their neighbours


def write_gallery(params: Params, folder: Path, device: torch.device) -> dict[str, float]:
    """Write `class_grid.npz`, `samples.png`, `decoding.npz` and `neighbours.npz` to `folder`.

    Returns:
        Mean distance to the nearest training image, in the extractor's features, of samples and of
        held-out real images: samples that are much nearer than these would be copies.
    """
    images = ImageShards(IMAGES, "train")
    names = images.class_names
    shown = range(min(CLASSES, len(names)))
    grids = {}
    for network in ("transformer", "autoregressive"):
        samples = np.load(SAMPLES / network / "images.npy", mmap_mode="r")
        rows = _even([range(c, len(samples), len(names)) for c in shown])
        grids[network] = np.stack([_channels_last(samples[row]) for row in rows])
    view = View(images, params.data, params.seed)
    rows = _even([np.flatnonzero(images.labels == c) for c in shown])
    grids["real"] = np.stack([_channels_last(view.centers(row).numpy()) for row in rows])
    flat = torch.from_numpy(grids["transformer"]).flatten(0, 1).permute(0, 3, 1, 2)
    save_picture(grid_picture(flat, grids["transformer"].shape[1]), folder / "samples.png")
    class_names = np.array(names[: len(shown)])
    write_npz(folder / "class_grid.npz", {"class_names": class_names, **grids})
    _write_decoding(params, folder / "decoding.npz", device)
    return _write_neighbours(params, view, folder / "neighbours.npz", device)


def _even(rows: Sequence[Sequence[int] | np.ndarray]) -> list[np.ndarray]:
    """The first indices of each class, as many of every class: at most `PER_CLASS`."""
    few = min(PER_CLASS, *map(len, rows))
    return [np.array(row[:few]) for row in rows]


def _channels_last(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 2, 3, 1)


def _write_decoding(params: Params, path: Path, device: torch.device) -> None:
    tokenizer = load_model(TOKENIZER, "tokenizer", device)
    model = load_model(TRANSFORMER, "transformer", device)
    labels = balanced_labels(DECODED, model.config.num_classes)
    steps = generate(model, labels, params.decoding_settings(), seed=params.seed, device=device)
    side = params.grid
    canvases = [_channels_last(tokens_to_images(tokenizer, s.sampled).numpy()) for s in steps]
    masks = [s.masked.unflatten(-1, (side, side)).cpu().numpy() for s in steps]
    write_npz(path, {"images": np.stack(canvases), "masked": np.stack(masks)})


def _write_neighbours(
    params: Params, view: View, path: Path, device: torch.device
) -> dict[str, float]:
    evaluator = Evaluator(params, device)
    reference = evaluator.reference.features
    held_out = CenterCrops(IMAGES, "val", params.data)
    samples = np.load(SAMPLES / "transformer/images.npy", mmap_mode="r")
    chosen = ArrayImages(samples[: params.evaluation.samples])
    distance, index = _nearest(evaluator.features(chosen).features, reference)
    real_distance, _ = _nearest(evaluator.features(held_out).features, reference)
    nearest = [_channels_last(view.centers(row).numpy()) for row in index[:COMPARED]]
    pictured = {
        "samples": _channels_last(samples[:COMPARED]),
        "nearest": np.stack(nearest),
        "distance": distance[:COMPARED].numpy(),
    }
    write_npz(path, pictured)
    name = evaluator.extractor.name
    return {
        f"nearest_distance_{name}": distance[:, 0].mean().item(),
        f"nearest_distance_{name}_real": real_distance[:, 0].mean().item(),
    }


def _nearest(features: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances and indices (M, NEIGHBOURS) of the nearest reference features, in blocks."""
    blocks = [
        torch.cdist(block, reference).topk(NEIGHBOURS, dim=1, largest=False)
        for block in features.split(1000)
    ]
    return torch.cat([b.values for b in blocks]), torch.cat([b.indices for b in blocks])
