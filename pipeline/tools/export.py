"""Writes images to files: grids and GIFs to look at, and PNGs or the ADM suite's `.npz` for other
evaluation tools."""

import itertools
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.api.labels import labels_for
from pipeline.api.model import MaskGIT
from pipeline.config.params import Params
from pipeline.config.replicates import NetworkName, main_replicate
from pipeline.data.images.pixels import GREY, from_chw, grid_picture, in_threads, save_picture
from pipeline.data.images.shards import SAMPLES, ImageShards, View
from pipeline.evaluation.image_sets import ArrayImages, ImageSet, batches
from pipeline.runtime.files import atomic_file, atomic_folder, require_new
from pipeline.runtime.progress import PAUSE, progress
from pipeline.runtime.provenance import require_current

COLUMNS = 10
FRAME, LAST = 250, 2000  # milliseconds that each canvas and the result are shown


def write_samples(
    model: MaskGIT, path: Path, classes: list[str] | None, count: int, seed: int, decoding: Any
) -> None:
    """Draw samples and write them to `path`. The suffix selects the format: `.png` is a grid,
    `.gif` shows the canvas after each iteration, `.npz` is for the ADM suite, and no suffix is a
    folder of PNGs. The samples cycle through `classes` (names or numbers); None means all classes.
    Raises a `UserError` if the model has no such class, or if `path` cannot be written."""
    form = path.suffix.lower()
    if form == ".gif":
        steps = model.sample_steps(classes, count, seed=seed, **decoding)
        _write_gif([canvas.shown for canvas in steps], path)
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


def _write_gif(canvases: list[Tensor], path: Path) -> None:
    blank = torch.full_like(canvases[0], GREY)
    columns = min(len(blank), COLUMNS)
    first, *rest = [grid_picture(canvas, columns) for canvas in (blank, *canvases)]
    shown: Any = {"save_all": True, "append_images": rest, "loop": 0}
    with atomic_file(path) as temporary:
        first.save(temporary, "gif", duration=[FRAME] * len(rest) + [LAST], **shown)


def write_results(images: Tensor, path: Path) -> None:
    """Write images to a PNG file: one image unchanged, several images as a grid."""
    single = MaskGIT.to_pil(images)[0] if len(images) == 1 else None
    save_picture(single or grid_picture(images, min(len(images), COLUMNS)), path)


def collected(name: str, count: int, batches: Iterable[Tensor]) -> Tensor:
    """Concatenate the images of all batches. Progress is printed as `<name> <done>/<count>`."""
    images: list[Tensor] = []
    with progress(name, 0, count, pause=PAUSE) as update:
        for batch in batches:
            images.append(batch)
            update(sum(map(len, images)))
    return torch.cat(images)


def export_samples(
    params: Params,
    network: NetworkName,
    path: Path,
    seed: int | None = None,
    everything: bool = False,
) -> int:
    """Write the samples that the stage `evaluate` drew from a trained network. A path with a suffix
    becomes an `.npz` in the ADM suite's layout, and any other path a folder of PNGs. Returns the
    number of samples written. Raises a `UserError` if the samples are missing or out of date, or if
    `path` cannot be written.

    Args:
        seed: training seed of the network; None for the first seed.
        everything: also write the samples after the first `evaluation.samples`; only CAS uses them.
    """
    folder = main_replicate(params, network, seed).samples
    require_current("evaluate")
    count = None if everything else params.evaluation.samples
    images = View(ImageShards(folder, SAMPLES), params.data, count=count)
    if path.suffix:
        export_npz(images, images.labels, path)
    else:
        export_pngs(images, path)
    return len(images)


def export_pngs(images: ImageSet, folder: Path | str) -> None:
    """Write images to a folder as `000000.png` …, atomically; grey images stay grey. Raises a
    `UserError` if the folder exists and is not empty, or cannot be written."""
    require_new(Path(folder))
    numbers = itertools.count()
    with atomic_folder(folder) as temporary:

        def save(item: tuple[Tensor, int]) -> None:
            image, number = item
            from_chw(image.numpy()).save(temporary / f"{number:06d}.png")

        for batch in batches(images):
            in_threads(save, zip(batch, numbers, strict=False))


def export_npz(images: ImageSet, labels: np.ndarray | Tensor | None, path: Path | str) -> None:
    """Write an `.npz` for the ADM suite: `arr_0` (n, H, W, 3) uint8, with grey repeated to RGB, and
    `arr_1` (n,) int64 if labels are given. The same images give identical files. Raises a
    `UserError` if the file cannot be written."""
    _, height, width = images.shape
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(images), height, width, 3)}
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as out:
            np.lib.format.write_array_header_1_0(out, header)
            for batch in batches(images):
                rgb_BHWC = batch.permute(0, 2, 3, 1).expand(-1, -1, -1, 3)
                out.write(rgb_BHWC.contiguous().numpy().data)
        if labels is not None:
            with archive.open("arr_1.npy", "w", force_zip64=True) as out:
                np.lib.format.write_array(out, np.asarray(labels, np.int64))
