"""What the page shows of a model, as pictures; all of it is drawn by the Python API."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Unpack

import numpy as np
import torch
from PIL import Image

from pipeline.api import pictures as convert
from pipeline.api.defaults import Decoding
from pipeline.api.model import GREY, MaskGIT
from pipeline.config.paths import IMAGES
from pipeline.data.image_grid import grid_picture
from pipeline.data.images.pixels import decode_image
from pipeline.data.images.shards import ImageShards
from pipeline.runtime.errors import UserError

# Bounds of the memory of a filling, of which every canvas is kept for the slider.
SAMPLES, PIXELS, ITERATIONS = 25, 2**19, 64
COLUMNS = 5
FILLINGS = 4  # of a hole, from as many draws
EXAMPLES = 12
WIDE = 640  # pixels of the longer side of a small picture, enlarged to be seen and drawn on


class Shown(NamedTuple):
    """A picture, and the seconds that the model took for it."""

    picture: Image.Image
    seconds: float


def most_samples(model: MaskGIT) -> int:
    """As many as are decoded as one batch, and no more pixels than `PIXELS`."""
    fitting = max(1, PIXELS // model.image_size**2)
    return min(SAMPLES, fitting, model.defaults.batch_size)


def filling(
    model: MaskGIT, classes: str | None, count: int, seed: int, **decoding: Unpack[Decoding]
) -> Iterator[Shown]:
    """The blank canvas, then what it is after each iteration; the last one is the samples.

    Args:
        classes: one, or None to cycle through all.
    """
    columns = min(count, COLUMNS)
    canvases = model.sample_steps(classes, count, seed=seed, **decoding)
    size = (count, model.channels, model.image_size, model.image_size)
    yield Shown(grid_picture(torch.full(size, GREY, dtype=torch.uint8), columns), 0.0)
    seconds = 0.0
    while True:
        started = time.perf_counter()  # of the decoding alone: to show it takes time as well
        canvas = next(canvases, None)
        seconds += time.perf_counter() - started
        if canvas is None:
            return
        yield Shown(grid_picture(canvas.shown, columns), seconds)


def fillings(
    model: MaskGIT,
    picture: Image.Image | None,
    drawn: Sequence[Image.Image],
    label: str,
    seed: int,
    **decoding: Unpack[Decoding],
) -> Shown:
    """In a row: the picture with what was drawn on it in grey, and that made anew as a class.

    Args:
        picture: with transparency, where the canvas is larger.
        drawn: layers of its size, transparent where it stays.

    Raises:
        UserError: there is no picture, or nothing is drawn on it.
    """
    area = None if picture is None else picture.getchannel("A").getbbox()
    if picture is None or area is None:
        raise UserError("there is no picture yet; drop one on the canvas, or press an example")
    picture = picture.crop(area)
    hole = np.zeros((picture.height, picture.width), bool)
    for layer in drawn:
        hole |= np.asarray(layer.getchannel("A").crop(area)) > 0
    if not hole.any():
        raise UserError("nothing is drawn yet; draw with the brush over what is to be made anew")
    side = model.image_size
    small = _not_enlarged(picture, side)
    if small is not picture:  # so is what was drawn on it, of which nothing is smoothed either
        factor = picture.width // side
        hole = hole.reshape(side, factor, side, factor).max(axis=(1, 3))
    images, _ = convert.as_batch(small, model.channels, side)
    mask = convert.pixel_mask(None, hole, {small.size}, side)
    several = images.repeat(FILLINGS, 1, 1, 1)
    started = time.perf_counter()
    results = model.inpaint(several, label, mask=mask, seed=seed, **decoding)
    seconds = time.perf_counter() - started
    row = torch.cat([images.masked_fill(mask, GREY), results])
    return Shown(grid_picture(row, len(row)), seconds)


def examples(model: MaskGIT) -> list[tuple[Image.Image, str]]:
    """Pictures to edit, of different classes, and those: of the project's validation set, or where
    the model comes without its own samples."""
    if model.project is not None and (model.project / IMAGES).exists():
        shards = ImageShards(model.project / IMAGES, "val")
        if tuple(shards.class_names) == model.classes:
            labels, first = np.unique(shards.labels, return_index=True)
            opened = [decode_image(shards.read(i)[1], model.channels) for i in first[:EXAMPLES]]
            images, _ = convert.as_batch(opened, model.channels, model.image_size)
            names = [model.classes[label] for label in labels[:EXAMPLES]]
            return list(zip(model.to_pil(images), names, strict=True))
    names = list(model.classes[:EXAMPLES])
    return list(zip(model.to_pil(model.sample(names)), names, strict=True))


def canvas_side(model: MaskGIT) -> int:
    """Pixels of the canvas to draw on: an example fills it."""
    return enlarged(Image.new("L", (model.image_size, model.image_size))).width


def enlarged(picture: Image.Image) -> Image.Image:
    """A small picture as large as `WIDE` allows, without smoothing."""
    factor = max(1, WIDE // max(picture.size))
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST)


def _not_enlarged(picture: Image.Image, side: int) -> Image.Image:
    """A picture of the model's size that was `enlarged`, as it was: to shrink it would smooth it.
    Others as they are."""
    small = picture.resize((side, side), Image.Resampling.NEAREST)
    return small if enlarged(small) == picture else picture
