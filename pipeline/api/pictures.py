"""Converts users' pictures, boxes and masks to tensors of a model's size."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.api.labels import whole
from pipeline.data.images.pixels import as_uint8, center_crop, to_chw
from pipeline.editing import box_mask, center_mask
from pipeline.prepare import pictures as clean
from pipeline.runtime.errors import ArgumentError

Picture = Image.Image | Path | str  # a path is opened as a file
Pictures = Picture | Sequence[Picture] | Tensor  # a tensor is (B, C, H, W) or (C, H, W)
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, as in Pillow
Mask = Image.Image | np.ndarray | Tensor | Path | str
_ONE = (Image.Image, Path, str)


def open_picture(
    picture: Picture, channels: int = 3, name: str = "pictures", *, opaque: bool = False
) -> Image.Image:
    """Convert a path or Pillow picture to an upright Pillow picture, grey if `channels` is 1, else
    RGB. Raises a `UserError` if the picture is missing or cannot be used, or if `opaque` is true
    and the picture is partly transparent. The error names the path or, if `picture` is not a path,
    `name`, the name of the caller's argument."""
    if isinstance(picture, Image.Image):
        opened = clean.clean_picture(picture, name, opaque=opaque)
    elif not isinstance(picture, _ONE):
        reason = f"a picture of type {type(picture).__name__} is not supported"
        raise ArgumentError(name, reason, "give paths, Pillow pictures or one tensor")
    else:
        opened = clean.open_picture(picture, opaque=opaque)
    return opened.convert("L" if channels == 1 else "RGB")


def as_batch(pictures: Pictures, channels: int, side: int) -> tuple[Tensor, set[tuple[int, int]]]:
    """Convert pictures to a batch. Returns a tuple of the batch (B, C, side, side) uint8 and the
    set of the pictures' original sizes (width, height). Files and Pillow pictures are cut to their
    centred square and resized; tensors must have the model's size.

    Raises:
        ArgumentError: a tensor has an unsupported shape, dtype or value, or the list is empty.
        UserError: a file is missing, or is not a picture.
    """
    if isinstance(pictures, Tensor):
        return _checked(pictures, channels, side), {(side, side)}
    arrays, sizes = [], set()
    for picture in [pictures] if isinstance(pictures, _ONE) else pictures:
        opened = open_picture(picture, channels)  # one large picture in memory at a time
        arrays.append(to_chw(center_crop(opened, side)))
        sizes.add(opened.size)
    if not arrays:
        raise ArgumentError("pictures", "the list is empty", "give one picture or more")
    return torch.from_numpy(np.stack(arrays)), sizes


def _checked(images: Tensor, channels: int, side: int) -> Tensor:
    batch = images[None] if images.ndim == 3 else images
    if batch.is_floating_point() and ((batch >= 0) & (batch <= 1)).all():
        batch = as_uint8(batch)
    shape = (len(batch), channels, side, side)
    if batch.dtype != torch.uint8 or batch.shape != shape or not len(batch):
        reason = f"an unsupported tensor: {images.dtype} of shape {tuple(images.shape)}"
        allowed = f"(B, {channels}, {side}, {side}), uint8 or floats from 0 to 1"
        raise ArgumentError("pictures", reason, f"give {allowed}, or Pillow pictures")
    return batch.cpu()


def pixel_mask(
    box: Box | None, mask: Mask | None, sizes: set[tuple[int, int]], side: int
) -> Tensor:
    """Returns the mask (side, side) bool of the pixels to regenerate: all pixels that the box or
    mask touches after cropping and resizing. The default is the centred box of half the height and
    width. The box and the mask are in pixels of the original pictures, whose sizes (width, height)
    are `sizes`."""
    if box is None and mask is None:
        return center_mask((side, side), 0.5)
    if box is not None and mask is not None:
        raise ArgumentError("box and mask", "both are given", "give only one")
    if len(sizes) > 1:
        reason = "the pictures differ in size, so one box or mask does not fit all"
        raise ArgumentError("pictures", reason, "edit each picture in a call of its own")
    width, height = next(iter(sizes))
    full = _as_bool(mask) if box is None else _boxed(box, width, height).numpy()
    if full.shape != (height, width):
        shape = "×".join(map(str, full.shape[::-1]))
        reason = f"{shape} pixels (width × height), but the picture has {width}×{height}"
        raise ArgumentError("mask", reason, "give a mask of the picture's size")
    resized = center_crop(Image.fromarray(full.astype(np.float32)), side)
    fitted = torch.from_numpy(np.array(resized) > 0)
    if not fitted.any():
        reason = "no pixel to regenerate lies in the centred square of the picture"
        way_out = "give a box that overlaps the square, or a mask with white (True) pixels there"
        raise ArgumentError("mask" if box is None else "box", reason, way_out)
    return fitted


def _boxed(box: Box, width: int, height: int) -> Tensor:
    left, top, right, bottom = (whole("box", number) for number in box)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        size = f"a picture of {width}×{height} pixels (width × height)"
        reason = f"{left},{top},{right},{bottom} (left, top, right, bottom) is not a box in {size}"
        raise ArgumentError("box", reason, "give a box inside the picture")
    return box_mask((height, width), top, left, bottom - top, right - left)


def _as_bool(mask: Mask | None) -> np.ndarray:
    """Convert a picture or an array to a mask (H, W) bool. A pixel is True if its value is above
    0.5 or, if the array has values above 1, above 127."""
    if isinstance(mask, _ONE):
        # Transparent pixels would become white and so be regenerated.
        mask = np.array(open_picture(mask, channels=1, name="mask", opaque=True))
    values = np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask)
    if values.dtype.kind not in "biuf" or values.ndim != 2 or not values.size:
        reason = f"{values.dtype} of shape {values.shape} is not a mask"
        raise ArgumentError("mask", reason, "give booleans of shape (height, width)")
    return values > (0.5 if values.max() <= 1 else 127)
