"""Writes the arrays for pictures of samples: by class (Figure 5), by decoding iteration (Figure 2),
and beside their nearest training images, to reveal memorised images."""

from collections.abc import Iterable
from functools import reduce
from pathlib import Path

import numpy as np
import torch

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, TOKENIZER
from pipeline.config.replicates import NETWORKS, Replicate, main_replicates
from pipeline.data.images.pixels import grid_picture, save_picture
from pipeline.data.images.shards import SAMPLES, ImageShards, View
from pipeline.decoding.iterative import generate
from pipeline.evaluation.evaluator import Evaluator
from pipeline.experiments.evaluate.measuring import BLOCK, nearest
from pipeline.runtime.files import write_npz
from pipeline.sampling import balanced_labels
from pipeline.tokenizer import tokens_to_images
from pipeline.weights.published import load_model

CLASSES = 10  # maximum classes in the class grid
PER_CLASS = 10  # maximum images per class
DECODED = 4  # samples shown at every iteration
NEIGHBOURS = 5  # nearest training images per sample
COMPARED = 10  # samples shown with their nearest training images


def write_gallery(params: Params, folder: Path, evaluator: Evaluator) -> None:
    """Write `class_grid.npz`, `samples.png`, `decoding.npz` and `neighbours.npz` to `folder`, from
    samples drawn with the first seed in `evaluation.seeds`."""
    images = ImageShards(IMAGES, "train")
    view = View(images, params.data, params.seed)
    first = {network: main_replicates(params, network)[0] for network in NETWORKS}
    views: dict[str, View] = {
        name: View(ImageShards(replicate.samples, SAMPLES), params.data)
        for name, replicate in first.items()
    }
    views["real"] = view
    # The first classes with images in every set: a rare class may have no sample.
    shown = reduce(np.intersect1d, [v.images.labels for v in views.values()])[:CLASSES]
    grids: dict[str, np.ndarray] = {}
    for name, each in views.items():
        rows = [np.flatnonzero(each.images.labels == c) for c in shown]
        few = min(PER_CLASS, *map(len, rows))  # the same number for every class
        grids[name] = np.stack([_pictures(each, row[:few]) for row in rows])
    flat = torch.from_numpy(grids["transformer"]).flatten(0, 1).permute(0, 3, 1, 2)
    save_picture(grid_picture(flat, grids["transformer"].shape[1]), folder / "samples.png")
    class_names = np.array([images.class_names[c] for c in shown])
    write_npz(folder / "class_grid.npz", {"class_names": class_names, **grids})
    transformer = first["transformer"]
    _write_decoding(params, transformer, folder / "decoding.npz", evaluator.workers.device)
    _write_neighbours(params, transformer, view, folder / "neighbours.npz", evaluator)


def _pictures(view: View, rows: Iterable[int]) -> np.ndarray:
    """Centre crops (n, H, W, C) uint8 of the images of `view` at the indices `rows`."""
    return view.centers(rows).permute(0, 2, 3, 1).numpy()


def _write_decoding(params: Params, replicate: Replicate, path: Path, device: torch.device) -> None:
    tokenizer = load_model(TOKENIZER, "tokenizer", device)
    model = load_model(replicate.folder, "transformer", device)
    labels = balanced_labels(DECODED, model.config.num_classes)
    settings, side = params.decoding_settings(), params.grid
    steps = list(generate(model, labels, settings, seed=replicate.seed))
    images = torch.stack([tokens_to_images(tokenizer, s.sampled) for s in steps])
    masks = [s.masked.unflatten(-1, (side, side)).cpu().numpy() for s in steps]
    write_npz(path, {"images": images.movedim(-3, -1).numpy(), "masked": np.stack(masks)})


def _write_neighbours(
    params: Params, replicate: Replicate, view: View, path: Path, evaluator: Evaluator
) -> None:
    # Compare a whole block: with few rows, rounding depends on the number of threads.
    count = min(BLOCK, params.evaluation.samples)
    samples = View(ImageShards(replicate.samples, SAMPLES), params.data, count=count)
    features = evaluator.networks(samples.read(0, len(samples)))["features"]
    distance, index = nearest(features, evaluator.reference, NEIGHBOURS, evaluator.workers.device)
    pictured = {
        "samples": _pictures(samples, range(len(index[:COMPARED]))),
        "nearest": np.stack([_pictures(view, row) for row in index[:COMPARED]]),
        "distance": distance[:COMPARED].numpy(),
    }
    write_npz(path, pictured)
