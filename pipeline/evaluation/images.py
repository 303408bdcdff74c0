"""Image sets: our own samples (`.npy`), a folder of PNGs, the `.npz` of the ADM suite. They are
read as a stream of batches, and written as the latter two for evaluators outside of this project.
"""

import contextlib
import hashlib
import math
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.data.shards import ImageShards, View, decode_image, to_chw
from pipeline.errors import UserError
from pipeline.params import Data
from pipeline.runtime.files import atomic_file, atomic_folder, file_hash, tree_hash, value_hash

BATCH = 64  # images held in memory at once, and that a network sees at once
GREY_MODES = ("1", "L", "I;16")  # Pillow's


class ImageSet(Protocol):
    shape: tuple[int, int, int]  # (C, H, W) of each image, C 1 or 3
    content_hash: str  # the same for the same images in the same order

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[Tensor]:
        """The images in order, as uint8 batches (B, C, H, W), B at most `size`."""


def open_images(path: Path | str) -> ImageSet:
    """The image set at a path: a folder of PNGs, an `.npy` (n, C, H, W) or an `.npz` (`arr_0`,
    n, H, W, C), uint8.

    Raises:
        UserError: it is missing, empty, damaged, or holds something else.
    """
    path = Path(path)
    if path.is_dir():
        return PngImages(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give a folder of PNGs, an .npy or an .npz")
    if path.suffix == ".npz":
        return NpzImages(path)
    with _naming(path):
        images = np.lib.format.open_memmap(path, mode="r")
    _check(path, images.dtype, images.shape, channels=1)
    return ArrayImages(images)


class ArrayImages:
    """An array (n, C, H, W) uint8, in memory or memory-mapped; hashed by its pixels, so that a
    slice of a file is a set of its own."""

    def __init__(self, images: np.ndarray):
        self._images = images
        self.shape = images.shape[1:]

    def __len__(self) -> int:
        return len(self._images)

    @cached_property
    def content_hash(self) -> str:
        digest = hashlib.sha256(repr(self._images.shape).encode())
        for batch in self.batches(BATCH):
            digest.update(batch.numpy())
        return digest.hexdigest()

    def batches(self, size: int) -> Iterator[Tensor]:
        for start in range(0, len(self), size):
            yield torch.from_numpy(np.array(self._images[start : start + size]))


class PngImages:
    """The PNG files of a folder, sorted by name; grey where they are grey, RGB otherwise."""

    def __init__(self, folder: Path):
        self._paths = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".png")
        if not self._paths:
            raise UserError(f"{folder} holds no PNG files; give the folder that they lie in")
        self.shape = _read_png(self._paths[0]).shape

    def __len__(self) -> int:
        return len(self._paths)

    @cached_property
    def content_hash(self) -> str:
        return value_hash([file_hash(path) for path in self._paths])

    def batches(self, size: int) -> Iterator[Tensor]:
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(self), size):
                images = pool.map(self._read, self._paths[start : start + size])
                yield torch.from_numpy(np.stack(list(images))).contiguous()

    def _read(self, path: Path) -> np.ndarray:
        image = _read_png(path)
        if image.shape != self.shape:
            raise UserError(
                f"{path} is {_size(image.shape)} and {self._paths[0].name} {_size(self.shape)}; "
                f"images of one set must have one size: resize or delete it"
            )
        return image


class NpzImages:
    """The ADM suite's file: `arr_0` (n, H, W, C) uint8, and class labels `arr_1` where present.
    It is streamed out of the archive, which cannot be memory-mapped."""

    def __init__(self, path: Path):
        self.path = path
        with _naming(path), zipfile.ZipFile(path) as archive:
            with archive.open("arr_0.npy") as stream:
                shape, fortran, dtype = _read_header(stream)
            self.labels: np.ndarray | None = None
            if "arr_1.npy" in archive.namelist():
                with archive.open("arr_1.npy") as stream:
                    self.labels = np.lib.format.read_array(stream)
        _check(path, dtype, shape, channels=3, fortran=fortran)
        self._length, height, width, channels = shape
        self.shape = (channels, height, width)

    def __len__(self) -> int:
        return self._length

    @cached_property
    def content_hash(self) -> str:
        return file_hash(self.path)

    def batches(self, size: int) -> Iterator[Tensor]:
        channels, height, width = self.shape
        with (
            _naming(self.path),
            zipfile.ZipFile(self.path) as archive,
            archive.open("arr_0.npy") as stream,
        ):
            _read_header(stream)
            for start in range(0, len(self), size):
                shape = (min(size, len(self) - start), height, width, channels)
                content = bytearray(stream.read(math.prod(shape)))
                images_BHWC = torch.frombuffer(content, dtype=torch.uint8).reshape(shape)
                yield images_BHWC.permute(0, 3, 1, 2).contiguous()


class TrainingImages:
    """Centre crops of the training split, the usual reference on ImageNet."""

    def __init__(self, folder: Path, data: Data, seed: int):
        self._view = View(ImageShards(folder, "train"), data, seed)
        self.shape = (data.channels, data.image_size, data.image_size)
        self.content_hash = value_hash([tree_hash(folder), data.model_dump()])

    def __len__(self) -> int:
        return len(self._view.images)

    def batches(self, size: int) -> Iterator[Tensor]:
        for start in range(0, len(self), size):
            yield self._view.centers(range(start, min(start + size, len(self)))).contiguous()


def export_pngs(images: ImageSet, folder: Path | str) -> None:
    """Write `000000.png` …, grey images as grey; the folder appears when it is whole.

    Raises:
        UserError: the folder holds something else, which would be replaced, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and any(p.suffix.lower() != ".png" for p in folder.iterdir()):
        raise UserError(f"{folder} holds more than PNG files; give a new folder to export to")
    with atomic_folder(folder) as temporary, ThreadPoolExecutor() as pool:

        def save(item: tuple[int, Tensor]) -> None:
            number, image = item
            array = image.permute(1, 2, 0).numpy()
            picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
            picture.save(temporary / f"{number:06d}.png")

        first = 0
        for batch in images.batches(BATCH):
            list(pool.map(save, enumerate(batch, start=first)))
            first += len(batch)


def export_npz(images: ImageSet, labels: np.ndarray | Tensor | None, path: Path | str) -> None:
    """Write what the ADM suite reads, batch by batch: `arr_0` (n, H, W, 3) uint8, grey repeated to
    RGB, and `arr_1` (n,) int64 where labels are given. The same images give the same bytes.

    Raises:
        UserError: the file cannot be written.
    """
    _, height, width = images.shape
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(images), height, width, 3)}
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as out:
            np.lib.format.write_array_header_1_0(out, header)
            for batch in images.batches(BATCH):
                rgb_BHWC = batch.permute(0, 2, 3, 1).expand(-1, -1, -1, 3)
                out.write(rgb_BHWC.contiguous().numpy())
        if labels is not None:
            with archive.open("arr_1.npy", "w", force_zip64=True) as out:
                np.lib.format.write_array(out, np.asarray(labels, np.int64))


def _read_png(path: Path) -> np.ndarray:
    """(C, H, W) uint8."""
    with _naming(path):
        with Image.open(path) as image:
            channels = 1 if image.mode in GREY_MODES else 3
        return to_chw(decode_image(path.read_bytes(), channels))


def _read_header(stream) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of the array that an `.npy` stream goes on with."""
    if np.lib.format.read_magic(stream) == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _check(
    path: Path, dtype: np.dtype, shape: tuple[int, ...], channels: int, fortran: bool = False
) -> None:
    """Refuse what is no array of images; `channels` is the axis of the channels."""
    fits = len(shape) == 4 and shape[channels] in (1, 3) and shape[0] > 0
    if dtype != np.uint8 or not fits or fortran:
        wanted = "(n, C, H, W)" if channels == 1 else "(n, H, W, C)"
        raise UserError(
            f"{path} holds {dtype} {tuple(shape)} and no images; they are uint8 {wanted} in C order"
        )


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """What goes wrong while a file is read becomes one line that names the file."""
    try:
        yield
    except Exception as error:  # a damaged file makes its reader raise nearly anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged or no image file ({reason}); replace it") from error


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}×{height} {'grey' if channels == 1 else 'RGB'}"


def write_images(path: Path, batches: Iterable[Tensor], shape: tuple[int, ...]) -> None:
    """Batches of images (B, C, H, W) uint8 as one .npy of a shape, never all of them in memory."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with atomic_file(path) as temporary, open(temporary, "wb") as out:
        np.lib.format.write_array_header_1_0(out, header)
        for batch in batches:
            out.write(batch.contiguous().numpy())
