"""Opens image sets for `maskgit measure`: a folder of PNGs, or an `.npz` of the ADM suite."""

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch

from pipeline.data.images.pixels import in_threads, to_chw
from pipeline.evaluation.image_sets import ArrayImages, ImageSet
from pipeline.prepare.pictures import open_picture
from pipeline.runtime.batches import load_part
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import require_file


def open_images(path: Path | str) -> ImageSet:
    """Open an image set: a folder of PNGs, or an `.npz` of the ADM suite with images `arr_0`
    (n, H, W, C) uint8, C=1 or 3, and optional integer labels `arr_1` (n,). Raises a `UserError`
    if the folder or file is missing, empty, damaged or in an unsupported format."""
    return load_part(Path(path), _open, "give a folder of PNGs, or an .npz with arr_0 (n, H, W, C)")


def _open(path: Path) -> ImageSet:
    if path.is_dir():
        return _pngs(path)
    require_file(path)
    labels = None
    # Extract the images to a temporary file, since an archive cannot be memory-mapped.
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        images = np.load(archive.extract("arr_0.npy", folder), mmap_mode="r")
        if "arr_1.npy" in archive.namelist():
            array = np.load(archive.extract("arr_1.npy", folder), allow_pickle=False)
            labels = torch.from_numpy(array.astype(np.int64, casting="safe"))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(f"arr_0 is {images.dtype} {images.shape}, not uint8 (n, H, W, 1 or 3)")
    if not len(images) or (labels is not None and labels.shape != (len(images),)):
        raise ValueError("arr_0 is empty, or arr_1 does not have one label per image")
    return ArrayImages(np.moveaxis(images, -1, 1), labels)  # a view, still memory-mapped


def _pngs(folder: Path) -> ArrayImages:
    paths = sorted(folder.glob("[!.]*.[pP][nN][gG]"))  # no hidden files, which macOS creates
    if not paths:
        raise UserError(str(folder), "contains no PNG files", "give a folder of PNGs")
    shape = to_chw(open_picture(paths[0])).shape
    images = np.empty((len(paths), *shape), np.uint8)

    def read(index: int) -> None:
        image = to_chw(open_picture(paths[index]))
        if image.shape != shape:
            reason = f"{size_text(image.shape)}, but {paths[0].name} is {size_text(shape)}"
            way_out = "give images of equal size: resize or delete this file"
            raise UserError(str(paths[index]), reason, way_out)
        images[index] = image

    in_threads(read, range(len(paths)))
    return ArrayImages(images)


def size_text(shape: tuple[int, ...]) -> str:
    """Describe the shape (C, H, W) of images, such as "28×28 grey"."""
    channels, height, width = shape
    return f"{width}×{height} {'grey' if channels == 1 else 'RGB'}"
