"""Image sets for `maskgit measure`: PNGs, `.npy`, and the ADM suite's `.npz`."""

import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.data.images.pixels import in_threads, to_chw
from pipeline.evaluation.image_sets import ArrayImages, ImageSet
from pipeline.prepare.pictures import open_picture
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line, require_readable
from pipeline.runtime.files import require_file


def open_images(path: Path | str) -> ImageSet:
    """Open the image set at a path: a folder of PNGs, an `.npy` (n, C, H, W), or an `.npz` of the
    ADM suite with `arr_0` (n, H, W, C) and optional labels `arr_1` (n,); all uint8.

    Raises:
        UserError: it is missing, empty or damaged, or has an unsupported format.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return PngImages(path)
        require_file(path)
        if path.suffix.lower() == ".npy":
            return ArrayImages(_images(path, np.load(path, mmap_mode="r"), "(n, C, H, W)"))
        if path.suffix.lower() == ".npz":
            return _open_npz(path)
    except UserError:
        raise
    except Exception as error:  # a damaged file makes its reader raise nearly anything
        require_readable(path, error)
        reason = f"it cannot be read ({in_a_line(error)})"
        raise UserError(str(path), reason, "replace it") from error
    way_out = "give a folder of PNGs, an .npy or an .npz"
    raise UserError(str(path), "it has an unsupported format", way_out)


def _open_npz(path: Path) -> ArrayImages:
    """Unpack the images to a temporary file, since an archive cannot be memory-mapped."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        array = np.load(archive.extract("arr_0.npy", folder), mmap_mode="r")
        images = _images(path, np.moveaxis(array, -1, 1), "(n, H, W, C)")  # stays mapped
        if "arr_1.npy" not in archive.namelist():
            return ArrayImages(images)
        labels = np.load(archive.extract("arr_1.npy", folder), allow_pickle=False)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        # Other programs put other arrays there.
        print(f"{path}: arr_1 is not one integer label per image; measured without labels")
        return ArrayImages(images)
    return ArrayImages(images, torch.from_numpy(labels.astype(np.int64)))


def _images(path: Path, array: np.ndarray, wanted: str) -> np.ndarray:
    """Check that an array holds images (n, C, H, W), and return it."""
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] not in (1, 3) or not array.size:
        reason = f"it holds {array.dtype} of shape {array.shape}, not images"
        raise UserError(str(path), reason, f"give uint8 {wanted}, C 1 or 3")
    return array


class PngImages:
    """The PNG files of a folder, sorted by name; grey files give one channel, all others three.
    Hidden files (macOS creates some) are ignored."""

    def __init__(self, folder: Path):
        names = [n for n in sorted(os.listdir(folder)) if n.lower().endswith(".png")]
        self.folder, self.names = folder, [n for n in names if not n.startswith(".")]
        if not self.names:
            raise UserError(str(folder), "it holds no PNG files", "give the folder that holds them")
        self.shape = self._read(self.names[0]).shape

    def __len__(self) -> int:
        return len(self.names)

    def read(self, start: int, stop: int) -> Tensor:
        names = self.names[start:stop]
        images = in_threads(self._read, names)
        for name, image in zip(names, images, strict=True):
            if image.shape != self.shape:
                reason = f"{size_text(image.shape)}, and {self.names[0]} {size_text(self.shape)}"
                way_out = "give images of one size: resize or delete it"
                raise UserError(str(self.folder / name), reason, way_out)
        return torch.from_numpy(np.stack(images)).contiguous()

    def _read(self, name: str) -> np.ndarray:
        """(C, H, W) uint8."""
        return to_chw(open_picture(self.folder / name))


def size_text(shape: tuple[int, ...]) -> str:
    """The size of images (C, H, W) in words, such as "28×28 grey"."""
    channels, height, width = shape
    return f"{width}×{height} {'grey' if channels == 1 else 'RGB'}"
