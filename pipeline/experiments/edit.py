"""Inpaints and outpaints validation images (paper, section 4.3), for the scores of Table 2 and the
pictures of Figures 6 and 7."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES, TOKENIZER
from pipeline.config.replicates import Replicate, main_replicates
from pipeline.data.images.pixels import GREY
from pipeline.data.images.shards import ImageShards, View
from pipeline.data.seeds import mix
from pipeline.editing import center_mask, edit, fill_unknown, outpaint_beyond, outpaint_mask
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.metrics import disjoint
from pipeline.evaluation.reconstruction import hole_distances
from pipeline.experiments.rows import Row, measured_row
from pipeline.perceptual import open_distance_map
from pipeline.runtime.batches import BatchWorkers, Maker
from pipeline.weights.published import load_model

# Task -> function from image size to mask of unknown pixels. The first two tasks are in Table 2.
TASKS: dict[str, Callable[[tuple[int, int]], Tensor]] = {
    "inpaint_center": partial(center_mask, fraction=0.5),
    "outpaint_right": partial(outpaint_mask, side="right", fraction=0.5),
    "outpaint_left": partial(outpaint_mask, side="left", fraction=0.5),
    "outpaint_top": partial(outpaint_mask, side="top", fraction=0.5),
    "outpaint_bottom": partial(outpaint_mask, side="bottom", fraction=0.5),
}
DISTANCES = ("psnr_hole", "perceptual_hole")
PICTURED = 6  # validation images per figure
CLASSES = 10  # classes for which the central box is regenerated
DRAWS = 4  # outpaintings per image


class Editor:
    """Edits validation images with one seed's model and the settings of the params section
    `editing`."""

    def __init__(self, params: Params, replicate: Replicate, device: torch.device):
        self.params = params
        self.model = load_model(replicate.folder, "transformer", device)
        self.tokenizer = load_model(TOKENIZER, "tokenizer", device)
        self.view = View(ImageShards(IMAGES, "val"), params.data, params.seed)
        count = min(params.editing.images, len(self.view.images))
        labels = torch.from_numpy(self.view.images.labels)
        # The images have the split's class proportions, because FID compares whole sets.
        self.chosen = next(disjoint(labels, count, seed=params.seed))
        self.labels = labels[self.chosen]
        self.size = (params.data.image_size,) * 2
        self.settings = params.decoding_settings(iterations=params.editing.iterations)
        editing = params.editing
        self.borders: dict[str, Any] = {"dilate": editing.dilate, "feather": editing.feather}

    def __call__(self, rows: Tensor, task: str | None = None, seed: int | None = None) -> Tensor:
        """Edit the images with indices `rows` (B,) for a task in `TASKS`, with their own classes as
        labels. Returns the composites (B, C, H, W) uint8. If `task` is None, returns the originals;
        else, if `seed` is None, fills unknown pixels with their nearest known pixels instead."""
        images = self.images(rows)
        if task is None:
            return images
        mask = TASKS[task](self.size)
        if seed is None:
            return fill_unknown(images, mask)
        return self.edit(images, mask, self.labels[rows], seed)

    def batches(self, task: str | None = None, seed: int | None = None) -> list[tuple]:
        """The arguments of `Editor.__call__` for each batch of images."""
        batches = torch.arange(len(self.labels)).split(self.params.decoding.batch_size)
        return [
            (rows.clone(), task, seed if seed is None else mix(seed, str(task), number))
            for number, rows in enumerate(batches)
        ]

    def images(self, rows: Tensor | np.ndarray) -> Tensor:
        """The original images (B, C, H, W) uint8 with indices `rows` (B,)."""
        return self.view.centers(self.chosen[rows])

    def edit(self, images: Tensor, mask: Tensor, labels: Tensor, seed: int) -> Tensor:
        networks = (self.model, self.tokenizer)
        edited = edit(*networks, images, mask, labels, self.settings, seed=seed, **self.borders)
        return edited.composite


def open_distances(
    maker: Maker, params: Params, device: torch.device
) -> Callable[..., dict[str, Tensor]]:
    """Return a function that compares edited images with the originals, by `hole_distances`.
    `maker` opens the `Editor` that edits the images. The function returns an empty dict if its
    `task` is None, because the images are then the originals."""
    editor: Editor = maker.open(device)
    classifier = load_model(CLASSIFIER, "classifier", device)
    distance_map = open_distance_map(params.tokenizer.perceptual, classifier, device)

    def distances(
        images: Tensor, rows: Tensor, task: str | None = None, seed: int | None = None
    ) -> dict[str, Tensor]:
        if task is None:
            return {}
        hole, originals = TASKS[task](editor.size).to(device), editor.images(rows).to(device)
        return hole_distances(images.to(device), originals, hole, distance_map)

    return distances


def edit_rows(
    params: Params, folders: Mapping[Replicate, Path], baseline: Path, workers: BatchWorkers
) -> list[Row]:
    """Return a row for each task (such as "inpaint_center") and method. The methods are each seed's
    MaskGIT model; `nearest`, which fills unknown pixels with their nearest known pixels; and
    `original`, which edits nothing. A row has scores of the images and, except for `original`,
    distances from the originals in the mask. Rows are stored as `<task>.json` or `originals.json`.

    Args:
        folders: run directory of each replicate (one seed's model).
        baseline: run directory for the rows of `nearest` and of the originals.
    """
    evaluator = Evaluator(params, workers)
    makers = [Maker(Editor, params, replicate) for replicate in folders]
    editor: Editor = makers[0].open(workers.device)
    edits = [evaluator.on_the_fly(maker, Maker(open_distances, maker, params)) for maker in makers]
    extractor = evaluator.extractor
    scores = (f"fid_{extractor}", f"is_{extractor}", "class_accuracy")

    def measure(found: dict[str, Tensor]) -> Row:
        far = {name: found[name].mean().item() for name in DISTANCES if name in found}
        return evaluator.scores(found, editor.labels) | far

    def row(method: str, seed: int | None, maker: Maker, folder: Path, task: str) -> Row:
        edited = None if method == "original" else task
        name = f"edit: {edited or 'originals'} {method}{'' if seed is None else f' seed {seed}'}"
        file, batches = folder / f"{edited or 'originals'}.json", editor.batches(edited, seed)
        found = measured_row(file, workers, maker, batches, name, measure)
        own = {"task": task, "method": method, "seed": seed, "images": len(editor.labels)}
        return own | {column: found[column] for column in (*scores, *DISTANCES) if column in found}

    methods: list[tuple[str, int | None, Maker, Path]] = [
        (method, None, edits[0], baseline) for method in ("original", "nearest")
    ]
    own = zip(edits, folders.items(), strict=True)
    methods += [("maskgit", replicate.seed, maker, folder) for maker, (replicate, folder) in own]
    # Models are measured one after another, so that no worker has many networks in memory.
    rows = [row(*method, task) for method in methods for task in TASKS]
    return sorted(rows, key=lambda row: list(TASKS).index(row["task"]))


def edit_pictures(params: Params, device: torch.device) -> dict[str, np.ndarray]:
    """Edit n validation images, each of a different class, with the model of the first seed.

    Returns:
        A dict with uint8 arrays of pictures. inpainting (n, 3, H, W, C): image with a grey centre,
        composite, original. class_edit (n, 2 + k, H, W, C): original, image with a grey centre, and
        k composites, each with another class in its centre; class_edit_labels (k,) has their names.
        outpainting (n, 1 + s, H, W, C): image with a grey right half, and s outpaintings. panorama
        (n, H, 3 W, C): image extended to the left and right.
    """
    replicate = main_replicates(params, "transformer")[0]
    editor = Editor(params, replicate, device)
    _, first = np.unique(editor.labels, return_index=True)
    chosen = np.sort(first)[:PICTURED]
    images, labels = editor.images(chosen), editor.labels[chosen]
    center, right = (TASKS[task](editor.size) for task in ("inpaint_center", "outpaint_right"))
    names = editor.view.images.class_names[:CLASSES]

    def seed(*parts: int | str) -> int:
        return mix(replicate.seed, "pictures", *parts)

    boxed = images.masked_fill(center, GREY)
    inpainted = editor.edit(images, center, labels, seed("inpainting"))
    others = [
        editor.edit(images, center, torch.full_like(labels, label), seed("class"))
        for label in range(len(names))
    ]
    outpainted = [
        editor.edit(images, right, labels, seed("outpainting", draw)) for draw in range(DRAWS)
    ]
    return {
        "inpainting": _rows(boxed, inpainted, images),
        "class_edit": _rows(images, boxed, *others),
        "class_edit_labels": np.array(names),
        "outpainting": _rows(images.masked_fill(right, GREY), *outpainted),
        "panorama": _rows(_panorama(editor, images, labels, seed("panorama")))[:, 0],
    }


def _panorama(editor: Editor, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Extend images (n, C, H, W) by their width to the left and to the right, to (n, C, H, 3 W)."""
    side = editor.size[1]
    for direction in ("left", "right"):
        images = outpaint_beyond(
            editor.model,
            editor.tokenizer,
            images,
            labels,
            editor.settings,
            side=direction,
            pixels=side,
            overlap=side // 2,
            seed=mix(seed, direction),
            **editor.borders,
        )
    return images


def _rows(*columns: Tensor) -> np.ndarray:
    """Stack image batches (n, C, H, W) as (n, columns, H, W, C)."""
    return torch.stack(columns, dim=1).permute(0, 1, 3, 4, 2).numpy()
