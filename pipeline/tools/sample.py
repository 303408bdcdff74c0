"""`maskgit sample`, `edit` and their like: what a model drew, as files."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from pipeline.api.defaults import Decoding
from pipeline.api.labels import labels_for
from pipeline.api.model import GREY, MaskGIT
from pipeline.data.image_grid import grid_picture, save_picture
from pipeline.evaluation.image_sets import ArrayImages
from pipeline.runtime.files import atomic_file
from pipeline.runtime.progress import PAUSE, progress
from pipeline.tools.export import export_npz, export_pngs

COLUMNS = 10
FRAME, LAST = 250, 2000  # milliseconds that a canvas is shown, and the result


def write_samples(
    model: MaskGIT,
    form: str,
    path: Path,
    classes: list[str] | None,
    count: int,
    seed: int,
    decoding: Decoding,
) -> None:
    """Write `count` samples.

    Args:
        form: ".png", a grid; ".gif", the canvas after each iteration; ".npz", for the ADM suite; or
            "", a folder of PNGs.
        classes: names or numbers that the samples cycle through; None for all.

    Raises:
        UserError: the model does not have one of the classes, or the path cannot be written.
    """
    if form == ".gif":
        _write_gif(model, path, classes, count, seed, decoding)
        return
    labels = labels_for(classes, count, model.classes)
    batches = model.sample_batches(classes, count, seed=seed, **decoding)
    images = collected("sample", count, batches)
    if form == ".npz":
        export_npz(ArrayImages(images.numpy()), labels, path)
    elif form == ".png":
        save_picture(grid_picture(images, min(count, COLUMNS)), path)
    else:
        export_pngs(ArrayImages(images.numpy()), path)


def collected(name: str, count: int, batches: Iterable[Tensor]) -> Tensor:
    """The images of all batches; prints progress.

    Args:
        name: of the work, as it is printed.
        count: of images in all.
    """
    images: list[Tensor] = []
    with progress(name, 0, count, pause=PAUSE) as update:
        for batch in batches:
            images.append(batch)
            update(sum(map(len, images)))
    return torch.cat(images)


def _write_gif(
    model: MaskGIT,
    path: Path,
    classes: list[str] | None,
    count: int,
    seed: int,
    decoding: Decoding,
) -> None:
    canvases = [c.shown for c in model.sample_steps(classes, count, seed=seed, **decoding)]
    blank = torch.full_like(canvases[0], GREY)
    frames = [grid_picture(canvas, min(count, COLUMNS)) for canvas in (blank, *canvases)]
    durations = [FRAME] * len(canvases) + [LAST]
    with atomic_file(path) as temporary:
        frames[0].save(
            temporary,
            format="gif",
            save_all=True,
            append_images=frames[1:],
            duration=durations,
            loop=0,
        )


def write_results(images: Tensor, path: Path) -> None:
    """Write one image as it is, or several as a grid, as a PNG."""
    single = MaskGIT.to_pil(images)[0] if len(images) == 1 else None
    save_picture(single or grid_picture(images, min(len(images), COLUMNS)), path)
