"""Pictures as people have them, as the batches that a model takes, and back."""

import math
from collections.abc import Iterable, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.api.numbers import a_path, elements, shown, whole
from pipeline.data.images.crops import center_crop
from pipeline.data.images.pixels import as_uint8
from pipeline.editing import box_mask, center_mask
from pipeline.prepare import pictures as clean
from pipeline.runtime.errors import ArgumentError
from pipeline.runtime.limits import BATCH, PICTURE_PIXELS

Picture = Image.Image | Path | str  # a path is opened
Pictures = Picture | Sequence[Picture] | Tensor  # a tensor is (B, C, H, W) or (C, H, W)
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the picture, as Pillow's
Mask = Image.Image | np.ndarray | Tensor | Path | str


_ONE = (Image.Image, Path, str)
_PICTURES = "give a picture of Pillow, the path of one, a list of these, or a tensor"


def open_picture(
    picture: Picture, channels: int = 3, name: str = "pictures", *, opaque: bool = False
) -> Image.Image:
    """A picture, opened where it is a path, as people see it, in grey (mode L) or RGB.

    Args:
        name: of the argument, for messages.
        opaque: refuse one that is partly transparent.

    Raises:
        ArgumentError: it is none, cannot be read, or its numbers are of a range that is not known.
        UserError: the file is missing, or no picture that is read.
    """
    if isinstance(picture, Image.Image):
        try:
            opened = clean.clean_picture(picture, opaque=opaque)
        except clean.BadPicture as error:
            raise ArgumentError(f"{name}: one picture", *error.args) from error
        except Exception as error:  # closed, or of a damaged file that is read only now
            raise ArgumentError(f"{name}: one cannot be read ({error}); open it again") from error
    elif isinstance(picture, (str, Path)):
        opened = clean.open_picture(a_path(name, picture), opaque=opaque)
    else:
        raise ArgumentError(f"{name}: {type(picture).__name__} is none; {_PICTURES}")
    return opened.convert("L" if channels == 1 else "RGB")


def as_batch(pictures: Pictures, channels: int, side: int) -> tuple[Tensor, set[tuple[int, int]]]:
    """Pictures as (B, C, side, side) uint8, and the sizes (width, height) that they had. Pillow's
    and files are cut to their centred square and resized; tensors have the model's size already.

    Raises:
        ArgumentError: a tensor has another shape or kind of numbers, or there is no picture.
        UserError: a file is missing, or no picture.
    """
    if isinstance(pictures, Tensor):
        images = _checked(pictures, channels, side)
        return images, {(side, side)}
    if not isinstance(pictures, (*_ONE, Iterable)):
        raise ArgumentError(f"pictures: {type(pictures).__name__} is none; {_PICTURES}")
    several = [pictures] if isinstance(pictures, _ONE) else elements("pictures", pictures)
    if not several:
        raise ArgumentError("pictures: an empty list; give one picture or more")
    arrays, sizes = [], set()
    for picture in several:  # one large one in memory at a time
        opened = open_picture(picture, channels)
        arrays.append(np.array(center_crop(opened, side)))
        sizes.add(opened.size)
    images = torch.from_numpy(np.stack(arrays)).view(len(arrays), side, side, channels)
    return images.permute(0, 3, 1, 2).contiguous(), sizes


def _checked(images: Tensor, channels: int, side: int) -> Tensor:
    require_plain("pictures", images)
    require_few("pictures", images)
    batch = images[None] if images.ndim == 3 else images
    if batch.ndim != 4 or tuple(batch.shape[1:]) != (channels, side, side) or not len(batch):
        raise ArgumentError(
            f"pictures: a tensor of shape {tuple(images.shape)}; this model takes (B, {channels}, "
            f"{side}, {side}), or pictures of Pillow, which are cut and resized"
        )
    if batch.is_floating_point():
        if not bool(((batch >= 0) & (batch <= 1)).all()):
            raise ArgumentError("pictures: numbers outside of 0 to 1; scale them, or give uint8")
        batch = as_uint8(batch)
    if batch.dtype != torch.uint8:
        raise ArgumentError(f"pictures: {batch.dtype} is no kind of pixel; give uint8, or floats")
    return batch.cpu()


def pixel_mask(
    box: Box | None, mask: Mask | None, sizes: set[tuple[int, int]], side: int
) -> Tensor:
    """(side, side) bool, True on what is to be made anew: every pixel that the given part touches,
    cut and resized as the pictures are. Without box and mask, the centred box of half the sides.

    Args:
        sizes: (width, height) of the pictures, whose pixels box and mask count in.
    """
    if box is None and mask is None:
        return center_mask((side, side), 0.5)
    if box is not None and mask is not None:
        raise ArgumentError("box and mask: give one of them")
    if len(sizes) > 1:
        raise ArgumentError("pictures: of several sizes; edit them one by one, or cut them alike")
    width, height = next(iter(sizes))
    full = _boxed(box, width, height) if box is not None else _as_bool(mask)
    if tuple(full.shape) != (height, width):
        raise ArgumentError(
            f"mask: {full.shape[-1]}×{full.shape[0]} pixels (width × height), and the picture has "
            f"{width}×{height}; make them alike"
        )
    fitted = _fitted(full, side)
    if not fitted.any():
        raise ArgumentError(
            "mask: nothing in the centred square of the picture is to be made anew; paint that "
            "white (True), and black what stays"
        )
    return fitted


def _boxed(box: Box, width: int, height: int) -> Tensor:
    numbers = elements("box", box) if isinstance(box, Iterable) else []
    if len(numbers) != 4:
        raise ArgumentError(f"box: {shown(box)} is not left, top, right, bottom")
    left, top, right, bottom = (whole("box", number) for number in numbers)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ArgumentError(
            f"box: {left},{top},{right},{bottom} (left, top, right, bottom) is not inside the "
            f"picture of {width}×{height} pixels (width × height); give a box that is"
        )
    return box_mask((height, width), top, left, bottom - top, right - left)


def _as_bool(mask: Mask | None) -> Tensor:
    """(H, W) bool; of a picture, True where it is lighter than middle grey."""
    if isinstance(mask, _ONE):
        # On the background, which is light, what is transparent would all be made anew.
        shown = open_picture(mask, channels=1, name="mask", opaque=True)
        return torch.from_numpy(np.array(shown) >= 128)
    values = as_tensor("mask", mask, "no picture, and no array of numbers")
    if values.ndim != 2:
        raise ArgumentError(f"mask: shape {tuple(values.shape)}; give (height, width)")
    if values.is_complex():
        raise ArgumentError("mask: complex numbers; give True and False")
    of_picture = values.dtype == torch.uint8
    if not values.is_floating_point():
        values = values.long()  # torch compares few kinds of whole numbers
    for white in (1, 255):
        if bool(((values == 0) | (values == white)).all()):
            return (values == white).cpu()
    if not of_picture:
        raise ArgumentError("mask: other numbers than 0 and 1, or 0 and 255; give True and False")
    return (values >= 128).cpu()


def _fitted(mask: Tensor, side: int) -> Tensor:
    """The centred square of a (H, W) mask as (side, side): every pixel that it has a part in, by
    the filter that pictures are resized with."""
    height, width = mask.shape
    square = min(height, width)
    left, top = (width - square) // 2, (height - square) // 2
    picture = Image.fromarray(mask.numpy().astype(np.float32))
    box = (left, top, left + square, top + square)
    return torch.from_numpy(
        np.array(picture.resize((side, side), Image.Resampling.BILINEAR, box=box)) > 0
    )


def as_tensor(name: str, given: Any, otherwise: str) -> Tensor:
    """Numbers as a plain tensor.

    Args:
        otherwise: what the message says that anything else is.

    Raises:
        ArgumentError: it is none.
    """
    if isinstance(given, Tensor):
        require_plain(name, given)
    if isinstance(given, np.ma.MaskedArray):  # torch would take what it hides
        raise ArgumentError(f"{name}: a masked array; give a plain one")
    if isinstance(given, np.ndarray | Tensor):
        numbers = math.prod(given.shape)
    else:
        numbers = len(given) if isinstance(given, Sized) else 0
    if numbers > PICTURE_PIXELS:  # one that repeats its values may have any size
        raise ArgumentError(f"{name}: {numbers:,} numbers; give fewer")
    try:
        if isinstance(given, np.ndarray):
            # torch takes none that is turned over, or of bytes in the other order.
            given = np.ascontiguousarray(given, dtype=given.dtype.newbyteorder("="))
        tensor = torch.as_tensor(given)
    except Exception:  # of torch, in its own words, or of what it asks of the object
        raise ArgumentError(f"{name}: {otherwise}; give one") from None
    require_plain(name, tensor)
    return tensor


def as_images(images: Tensor) -> Tensor:
    """A batch (B, C, H, W) uint8, grey or RGB, on the CPU.

    Raises:
        ArgumentError: it is none, or empty.
    """
    if not isinstance(images, Tensor):
        raise ArgumentError(f"images: {type(images).__name__} is no tensor; give one")
    require_plain("images", images)
    require_few("images", images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel():
        raise ArgumentError(f"images: shape {tuple(images.shape)}; give (B, 1 or 3, H, W)")
    if images.dtype != torch.uint8:
        raise ArgumentError(f"images: {images.dtype} is no kind of pixel; give uint8")
    return images.cpu()


def require_plain(name: str, tensor: Tensor) -> None:
    """Raises: ArgumentError: it has no numbers one beside the other, or of a kind that torch hardly
    computes with."""
    odd = tensor.is_meta or tensor.is_quantized or tensor.is_nested
    few = tensor.is_floating_point() and tensor.element_size() < 2  # float8 and the like
    if odd or few or tensor.layout != torch.strided:
        raise ArgumentError(f"{name}: no plain, dense tensor; give one")


def require_few(name: str, batch: Tensor) -> None:
    """Raises: ArgumentError: the tensor, which may repeat its values, has too many images."""
    if batch.ndim == 4 and len(batch) > BATCH:
        raise ArgumentError(f"{name}: {len(batch):,} are more than the limit of {BATCH:,}")


def to_pil(images: Tensor) -> list[Image.Image]:
    """Batches (B, C, H, W) uint8 as pictures of Pillow, grey or RGB."""
    arrays = as_images(images).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(a[..., 0] if a.shape[2] == 1 else a) for a in arrays]
