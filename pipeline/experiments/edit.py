"""Table 2, in- and outpainting of validation images, and the pictures of Figures 6 and 7 (paper,
section 4.3)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, TOKENIZER, TRANSFORMER
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.views import View
from pipeline.editing import (
    center_mask,
    edit,
    fill_unknown,
    outpaint_beyond,
    outpaint_mask,
    pixel_mask_to_tokens,
)
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.images import make_images
from pipeline.runtime.seeds import mix
from pipeline.weights.published import load_model

# Pixels (H, W) that are unknown; the first two are Table 2's.
TASKS: dict[str, Callable[[tuple[int, int]], Tensor]] = {
    "inpaint_center": partial(center_mask, fraction=0.5),
    "outpaint_right": partial(outpaint_mask, side="right", fraction=0.5),
    "outpaint_left": partial(outpaint_mask, side="left", fraction=0.5),
    "outpaint_top": partial(outpaint_mask, side="top", fraction=0.5),
    "outpaint_bottom": partial(outpaint_mask, side="bottom", fraction=0.5),
}
PICTURED = 6  # images of each kind of picture
CLASSES = 10  # classes that a box is regenerated as
DRAWS = 4  # seeds of one outpainting
GREY = 128  # of unknown pixels


class Editor:
    """The trained models with the params' settings, and the validation images that they edit."""

    def __init__(self, params: Params, device: torch.device):
        self.params = params
        self.model = load_model(TRANSFORMER, "transformer", device)
        self.tokenizer = load_model(TOKENIZER, "tokenizer", device)
        self.view = View(ImageShards(IMAGES, "val"), params.data, params.seed)
        count = min(params.editing.images, len(self.view.images))
        self.labels = torch.from_numpy(self.view.images.labels[:count])
        self.size = (params.data.image_size,) * 2
        self.settings = params.decoding_settings(iterations=params.editing.iterations)
        self.borders: dict[str, Any] = {
            "dilate": params.editing.dilate,
            "feather": params.editing.feather,
        }

    def composites(self, task: str, seed: int | None) -> list[Callable[[], Tensor]]:
        """Functions that make the batches (B, C, H, W) uint8 of the images, edited for their own
        classes. Without a seed they make the baseline, whose unknown pixels are copied from the
        nearest known one."""
        mask = TASKS[task](self.size)

        def make(number: int, chosen: Tensor) -> Tensor:
            images = self.view.centers(chosen)
            if seed is None:
                return fill_unknown(images, mask.expand(len(images), -1, -1))
            return self.edit(images, mask, self.labels[chosen], mix(seed, task, number))

        batches = torch.arange(len(self.labels)).split(self.params.decoding.batch_size)
        return [partial(make, *batch) for batch in enumerate(batches)]

    def edit(self, images: Tensor, mask: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Composites (B, C, H, W) uint8."""
        networks = (self.model, self.tokenizer)
        edited = edit(*networks, images, mask, labels, self.settings, seed=seed, **self.borders)
        return edited.composite

    def keeps_context(self, task: str) -> bool:
        """Whether any token is known once the mask is dilated."""
        mask = TASKS[task](self.size)[None]
        return not pixel_mask_to_tokens(mask, self.params.grid, self.params.editing.dilate).all()


def edit_rows(params: Params, run_folder: Path, device: torch.device) -> list[dict[str, Any]]:
    """A row for every task, method and seed: the scores of its composites.

    Args:
        run_folder: keeps the composites that are finished, `<task>-<seed or "nearest">.npy`.
    """
    editor, evaluator = Editor(params, device), Evaluator(params, device)
    rows = []
    for task in TASKS:
        if not editor.keeps_context(task):
            print(
                f"edit: {task}: with editing.dilate {params.editing.dilate} all tokens of the "
                f"{params.grid}×{params.grid} are unknown, and it is generated without the image",
                flush=True,
            )
        for seed in (None, *params.editing.seeds):
            name = "nearest" if seed is None else f"seed{seed}"
            path = run_folder / f"{task}-{name}.npy"
            images = make_images(path, editor.composites(task, seed), f"edit: {task} {name}")
            row: dict[str, Any] = {
                "task": task,
                "method": "nearest" if seed is None else "maskgit",
                "seed": seed,
            }
            values = evaluator.scores(images, editor.labels)
            rows.append(row | {"images": len(images)} | values)
            print(f"edit: {task} {name}: {values['class_accuracy']:.1%} recognised", flush=True)
    return rows


def edit_pictures(params: Params, device: torch.device) -> dict[str, np.ndarray]:
    """Pictures, uint8, of n validation images: the first of their classes.

    Returns:
        inpainting (n, 3, H, W, C): the image with its unknown pixels grey, composite, original;
        class_edit (n, 1 + k, H, W, C): the image, then its centre regenerated as each of k classes,
        whose names are class_edit_labels (k,); outpainting (n, 1 + s, H, W, C): the image with its
        right half grey, then s seeds; panorama (n, H, 3 W, C): extended to the left and right.
    """
    editor = Editor(params, device)
    _, first = np.unique(editor.labels, return_index=True)
    chosen = np.sort(first)[:PICTURED]
    images, labels = editor.view.centers(chosen), editor.labels[chosen]
    center, right = (TASKS[task](editor.size) for task in ("inpaint_center", "outpaint_right"))
    names = editor.view.images.class_names[:CLASSES]

    def seed(*parts: int | str) -> int:
        return mix(params.seed, "pictures", *parts)

    inpainted = editor.edit(images, center, labels, seed("inpainting"))
    others = [
        editor.edit(images, center, torch.full_like(labels, label), seed("class"))
        for label in range(len(names))
    ]
    outpainted = [
        editor.edit(images, right, labels, seed("outpainting", draw)) for draw in range(DRAWS)
    ]
    return {
        "inpainting": _rows(images.masked_fill(center, GREY), inpainted, images),
        "class_edit": _rows(images, *others),
        "class_edit_labels": np.array(names),
        "outpainting": _rows(images.masked_fill(right, GREY), *outpainted),
        "panorama": _rows(_panorama(editor, images, labels, seed("panorama")))[:, 0],
    }


def _panorama(editor: Editor, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Images extended by their own width to the left and right, (n, C, H, 3 W), in windows of which
    half is known."""
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
    """(n, columns, H, W, C) of image batches (n, C, H, W)."""
    return torch.stack(columns, dim=1).permute(0, 1, 3, 4, 2).numpy()
