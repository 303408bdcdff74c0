"""Image sets of others: folders of PNGs, and the `.npz` of the ADM suite."""

import contextlib
import math
import os
import sys
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.images.pixels import to_chw
from pipeline.data.images.threads import in_threads
from pipeline.evaluation.images import BATCH, ArrayImages, ImageSet
from pipeline.evaluation.statistics import array_entry
from pipeline.prepare.pictures import open_picture
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import file_hash, require_file, value_hash
from pipeline.runtime.limits import IMAGES, PICTURE_BYTES, PICTURE_PIXELS

ARRAY, LABELS = "arr_0", "arr_1"  # of an `.npz`


def open_images(path: Path | str) -> ImageSet:
    """The image set at a path: a folder of PNGs, an `.npy` (n, C, H, W) or an `.npz` (`arr_0`,
    n, H, W, C), uint8.

    Raises:
        UserError: it is missing, empty, damaged, or holds something else.
    """
    path = Path(path)
    with _naming(path):
        if path.is_dir():
            return PngImages(path)
        if not path.exists():
            raise UserError(f"{path} does not exist; give a folder of PNGs, an .npy or an .npz")
        require_file(path)
    if path.suffix.lower() == ".npz":
        return NpzImages(path)
    if path.suffix.lower() != ".npy":
        raise UserError(f"{path} is none of the forms; give a folder of PNGs, an .npy or an .npz")
    with _naming(path), np.errstate(over="raise"):  # NumPy warns of a shape that overflows
        images = np.lib.format.open_memmap(path, mode="r")
    fortran = not images.flags.c_contiguous
    _check(path, images.dtype, images.shape, channels=1, fortran=fortran)
    return ArrayImages(images)


class PngImages:
    """The PNG files of a folder, sorted by name; grey files give one channel, all others three.
    Hidden ones, which macOS leaves beside the pictures, are passed over."""

    def __init__(self, folder: Path):
        self._folder = folder
        found = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        # Names alone: of a million files paths would fill a gigabyte.
        self._names = [name for name in found if Path(name).suffix.lower() == ".png"]
        if not self._names:
            raise UserError(f"{folder} holds no PNG files; give the folder that they lie in")
        if others := len(found) - len(self._names):
            note = f"note: {others} files or folders in {folder} passed over, which are no PNGs"
            print(note, file=sys.stderr, flush=True)
        for name in self._names:
            _require_picture(folder / name)
        self.shape = _read_png(folder / self._names[0]).shape

    def __reduce__(self) -> tuple[Any, ...]:
        return PngImages, (self._folder,)

    def __len__(self) -> int:
        return len(self._names)

    @cached_property
    def content_hash(self) -> str:
        return value_hash([file_hash(self._folder / name) for name in self._names])

    def read(self, start: int, stop: int) -> Tensor:
        images = in_threads(self._read, self._names[start:stop])
        return torch.from_numpy(np.stack(images)).contiguous()

    def batches(self, size: int) -> Iterator[Tensor]:
        for start in range(0, len(self), size):
            yield self.read(start, start + size)

    def _read(self, name: str) -> np.ndarray:
        path = self._folder / name
        image = _read_png(path)
        if image.shape != self.shape:
            raise UserError(
                f"{path} is {size_text(image.shape)} and {self._names[0]} "
                f"{size_text(self.shape)}; images of one set have one size: resize or delete it"
            )
        return image


class NpzImages:
    """The ADM suite's file: `arr_0` (n, H, W, C) uint8, which is streamed out of the archive, since
    it cannot be memory-mapped; and perhaps `arr_1` (n,), the labels, None where it has none.
    `read` goes on where it was, and begins again for images that lie before."""

    def __init__(self, path: Path):
        self.path = path
        self._stream: _Stream | None = None  # of `read`, between two calls
        with _naming(path), zipfile.ZipFile(path) as archive:
            entry = array_entry(archive, ARRAY)
            with archive.open(entry) as stream:
                shape, fortran, dtype = _read_header(stream)
            _check(path, dtype, shape, channels=3, fortran=fortran)
            if math.prod(shape) > entry.file_size:
                raise UserError(f"{path} is cut off: it promises {shape[0]} images; copy it again")
            self.labels = _read_labels(path, archive, shape[0])
        self._length, height, width, channels = shape
        self.shape = (channels, height, width)

    def __len__(self) -> int:
        return self._length

    @cached_property
    def content_hash(self) -> str:
        return file_hash(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return NpzImages, (self.path,)

    def read(self, start: int, stop: int) -> Tensor:
        stream, self._stream = self._stream, None  # none whose reading failed is used again
        with _naming(self.path):
            if stream is None or stream.next > start:
                stream = _Stream(self.path, self.shape)
            images = stream.read(start, min(stop, len(self)))
        if stop < len(self):
            self._stream = stream
        return images

    def batches(self, size: int) -> Iterator[Tensor]:
        with _naming(self.path):
            stream = _Stream(self.path, self.shape)
            for start in range(0, len(self), size):
                yield stream.read(start, min(start + size, len(self)))


class _Stream:
    """The images of an `.npz`, from the first on. What is passed over is read as well: the checksum
    in the archive is of all of them, and is looked at behind the last one.

    Attributes:
        next: the number of the image that it is at.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]):
        self.next, self._shape = 0, shape
        archive = zipfile.ZipFile(path)
        self._file = archive.open(array_entry(archive, ARRAY))
        _read_header(self._file)

    def read(self, start: int, stop: int) -> Tensor:
        """Images (B, C, H, W), none of which lies before `next`."""
        while self.next < start:
            self._take(min(self.next + BATCH, start))
        return self._take(stop).permute(0, 3, 1, 2).contiguous()

    def _take(self, stop: int) -> Tensor:
        channels, height, width = self._shape
        shape = (stop - self.next, height, width, channels)
        content = bytearray(self._file.read(math.prod(shape)))
        images_BHWC = torch.frombuffer(content, dtype=torch.uint8).reshape(shape)
        self.next = stop
        return images_BHWC


def _read_labels(path: Path, archive: zipfile.ZipFile, images: int) -> Tensor | None:
    """(n,) int64; None where there are none. (Other programs put other arrays there.)"""
    if f"{LABELS}.npy" not in archive.namelist():
        return None
    entry = array_entry(archive, LABELS)
    with archive.open(entry) as stream:
        shape, _, dtype = _read_header(stream)
        if shape != (images,) or dtype.kind not in "iu":
            print(
                f"{path}: {LABELS} is {dtype} {shape} and no label, a whole number, of each of "
                f"{images} images; measured without labels",
                flush=True,
            )
            return None
        labels = np.frombuffer(stream.read(images * dtype.itemsize), dtype, images)
    return torch.from_numpy(labels.astype(np.int64))


def _require_picture(path: Path) -> None:
    try:
        require_file(path, PICTURE_BYTES)
    except FileNotFoundError as error:
        raise UserError(f"{path} is a broken link; delete it") from error


def _read_png(path: Path) -> np.ndarray:
    """(C, H, W) uint8."""
    return to_chw(open_picture(path))


def _read_header(stream) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and type of the array in an `.npy` stream, which is left at
    the array's first byte."""
    if np.lib.format.read_magic(stream) != (1, 0):  # whose headers are short
        raise ValueError("NumPy writes images in another version")
    return np.lib.format.read_array_header_1_0(stream)


def _check(
    path: Path, dtype: np.dtype, shape: tuple[int, ...], channels: int, fortran: bool = False
) -> None:
    """Raise a `UserError` unless the array holds images; `channels` is the axis of the channels."""
    fits = len(shape) == 4 and shape[channels] in (1, 3) and min(shape) > 0
    if dtype != np.uint8 or not fits or fortran:
        wanted = "(n, C, H, W)" if channels == 1 else "(n, H, W, C)"
        raise UserError(
            f"{path} holds {dtype} {tuple(shape)} and no images; they are uint8 {wanted} in C order"
        )
    if shape[0] > IMAGES:
        raise UserError(
            f"{path} holds {shape[0]:,} images, more than the limit of {IMAGES:,} "
            f"(docs/limits.md); give a part of them"
        )
    if (pixels := math.prod(shape[1:]) // shape[channels]) > PICTURE_PIXELS:
        raise UserError(
            f"{path} holds images of {pixels:,} pixels, more than the limit of {PICTURE_PIXELS:,} "
            f"(docs/limits.md); make them smaller"
        )


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn every error of the block, which reads a file, into a `UserError` that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a damaged file makes its reader raise nearly anything
        require_readable(path, error)
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged or no image file ({reason}); replace it") from error


def size_text(shape: tuple[int, ...]) -> str:
    """The size of images (C, H, W) in words, as "28×28 grey"."""
    channels, height, width = shape
    return f"{width}×{height} {'grey' if channels == 1 else 'RGB'}"
