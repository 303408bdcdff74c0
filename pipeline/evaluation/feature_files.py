"""The features of an image set are computed once, and kept in a file whose name is a hash of the
extractor's weights, of the images and of the code that leads from these to features. What is read
from there stays on the disk until it is used, and so those of ImageNet need no memory."""

import contextlib
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES
from pipeline.evaluation.features import Extractor, Features, extract, open_extractor
from pipeline.evaluation.images import BATCH, CenterCrops, ImageSet
from pipeline.evaluation.statistics import (
    ReferenceStatistics,
    load_statistics,
    read_statistics,
    save_statistics,
    statistics,
)
from pipeline.runtime.batches import Alone, Maker, make_parts, parts_folder
from pipeline.runtime.checksums import as_noted, keep_if_whole, note_hash, shared_folder
from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import atomic_file, require_file, tree_hash, value_hash
from pipeline.runtime.project import in_project
from pipeline.weights.published import load_model

PACKAGE = Path(__file__).parents[1]
CODE = (
    "data/images",
    "classifier.py",
    "evaluation/features.py",
    "evaluation/image_files.py",
    "evaluation/images.py",
)
STATISTICS = "evaluation/statistics.py"
PART = 8 * BATCH  # images whose features are made by one worker and kept together
CHUNK = 2**24  # bytes of a file that are looked at at once

_imported = cache(tree_hash)  # of code as it was imported: it may be edited while a stage runs
for name in (*CODE, STATISTICS):
    _imported(PACKAGE / name)


def load_features(path: Path) -> Features:
    """Read a file of features; what is not used is left on the disk.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        require_file(path)
        return _read(path)
    except Exception as error:  # a damaged file makes its reader raise nearly anything
        require_readable(path, error)
        raise UserError(f"{path} holds no features ({error}); delete it and run again") from error


def _read(path: Path) -> Features:
    from safetensors.torch import load_file

    features = Features(**load_file(path))
    tensors = [tensor for tensor in features if tensor is not None]
    sizes = {(tensor.ndim, tensor.dtype, len(tensor)) for tensor in tensors}
    if sizes != {(2, torch.float32, len(features.features))}:
        raise ValueError("not a row of numbers for each image")
    if not _all_finite(path):
        raise ValueError("some are NaN or infinite")
    return features


Kept = TypeVar("Kept")


def _kept(path: Path, read: Callable[[], Kept]) -> Kept | None:
    """What is kept in a file; None where it has to be made: it is not there yet, or it is damaged
    or not what is asked for. Then it is removed, and a line says so.

    Args:
        read: gives it, or raises any error where it is not what is asked for.
    """
    with contextlib.suppress(Exception):
        if as_noted(path):
            return read()
    with shared_folder(path.parent):  # another process may just have written or noted it
        if not keep_if_whole(path):
            return None
        try:
            return read()
        except Exception as error:  # a damaged file makes its reader raise nearly anything
            require_readable(path, error)
            reason = one_line(str(error))[:200]
            print(f"{path} is not what is asked for ({reason}); it is made again", flush=True)
            path.unlink()
            return None


def _features_of(path: Path, images: ImageSet, extractor: Extractor) -> Features:
    """Features of the images, as the extractor gives them, in a file.

    Raises:
        ValueError: they are of another number of images or other dimensions; or as `_read`.
    """
    found = _read(path)
    none = extract(extractor, [torch.zeros(0, *images.shape, dtype=torch.uint8)])
    widths = [[None if t is None else t.shape[1] for t in each] for each in (found, none)]
    if len(found.features) != len(images):
        raise ValueError(f"of {len(found.features)} images and not {len(images)}")
    if widths[0] != widths[1]:
        raise ValueError(f"features and logits of {widths[0]} dimensions and not {widths[1]}")
    return found


def features_size(path: Path) -> tuple[int, int]:
    """Number of the images and of the dimensions of the features in a file, which are not read."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        count, dimensions = file.get_slice("features").get_shape()
    return count, dimensions


def _all_finite(path: Path) -> bool:
    """Whether every number in a file is finite; read through a small buffer, so that the tensors,
    which are mapped, take no memory yet."""
    with open(path, "rb") as file:
        file.seek(8 + struct.unpack("<Q", file.read(8))[0])  # behind the header
        chunks = iter(lambda: file.read(CHUNK), b"")
        return all(np.isfinite(np.frombuffer(chunk, "<f4")).all() for chunk in chunks)


def features_path(images: ImageSet, extractor: Extractor, cache_dir: Path) -> Path:
    """The file that keeps the features of an image set; its name is a hash of the extractor's
    weights, the images, and the code that leads from one to the other."""
    code = [_imported(PACKAGE / name) for name in CODE]
    address = value_hash([extractor.name, extractor.identity, images.content_hash, code])[:16]
    return cache_dir / f"{address}.safetensors"


class Extraction:
    """An extractor, and the images that it is shown."""

    def __init__(self, extractor: Extractor, images: ImageSet):
        self.extractor, self.images = extractor, images

    def __call__(self, start: int, stop: int) -> dict[str, Tensor]:
        """`Features` of the images from `start` to before `stop`, by name."""
        found = extract(self.extractor, _batches(self.images, start, stop))
        return {k: v for k, v in found._asdict().items() if v is not None}


def _batches(images: ImageSet, start: int, stop: int) -> Iterator[Tensor]:
    for first in range(start, stop, BATCH):
        yield images.read(first, min(first + BATCH, stop))


def open_extraction(
    name: str, images: ImageSet, params: Params, root: Path, device: torch.device
) -> Extraction:
    """The extraction with the extractor of that name, in a worker."""
    classifier = load_model(root / CLASSIFIER, "classifier", device)
    return Extraction(open_extractor(name, classifier, params.evaluation, device), images)


def cached_features(
    images: ImageSet,
    extractor: Extractor,
    cache_dir: Path,
    workers: Alone | None = None,
    maker: Maker | None = None,
) -> Features:
    """Features of an image set, read from their file, or computed if it is missing or damaged.

    Args:
        workers: who computes them; this process if None.
        maker: gives the `Extraction` to those.

    Raises:
        UserError: the images cannot be read, or the features not written.
    """
    path = features_path(images, extractor, cache_dir)
    kept = _kept(path, lambda: _features_of(path, images, extractor))
    if kept is not None:
        return kept
    maker = maker or Maker(Extraction, extractor, images, here=Extraction(extractor, images))
    batches = [(start, min(start + PART, len(images))) for start in range(0, len(images), PART)]
    workers, folder = workers or Alone(torch.device("cpu")), parts_folder(path)
    # Another process may be at it.
    with shared_folder(folder, cache_dir / f".{path.stem}.lock"):
        if not as_noted(path):
            name = f"features: {extractor.name}"
            parts = make_parts({path: batches}, workers, maker, name)
            with shared_folder(cache_dir):
                _join(parts[path], path)
                note_hash(path)
        shutil.rmtree(folder, ignore_errors=True)
    found = load_features(path)
    if len(found.features) != len(images):  # the next run finds that, and makes it again
        raise UserError(f"{path}: made of parts that an earlier run left damaged; run again")
    return found


def _join(parts: list[Path], path: Path) -> None:
    """Join feature files along the images, one in memory at a time."""
    counts = [len(load_features(part).features) for part in parts]
    first = {k: v for k, v in load_features(parts[0])._asdict().items() if v is not None}
    header, end = {}, 0
    for name, rows in first.items():
        shape, start = [sum(counts), rows.shape[1]], end
        end += 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format's alignment
    with atomic_file(path) as temporary, open(temporary, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name in first:
            for part in parts:
                out.write(getattr(load_features(part), name).numpy())


def features_folder(params: Params) -> Path:
    """Where features are kept; a copy of the project shares it."""
    return in_project(params.ray.folder).resolve() / "features"


def reference_features(
    extractor: Extractor,
    params: Params,
    workers: Alone,
    root: Path = Path(),
    cache_dir: Path | None = None,
) -> Path:
    """The file with the features of every training image (centre crops), which samples are compared
    with. They are computed once; sweep and evaluation share them.

    Args:
        root: the project's folder.
        cache_dir: where they are kept, if it is not `features_folder`.
    """
    images = CenterCrops(root / IMAGES, "train", params.data)
    cache_dir = cache_dir or features_folder(params)
    maker = extraction(extractor, images, params, root)
    cached_features(images, extractor, cache_dir, workers, maker)
    return features_path(images, extractor, cache_dir)


def extraction(extractor: Extractor, images: ImageSet, params: Params, root: Path) -> Maker:
    """What gives features to `cached_features`, here with the extractor that is open."""
    here = Extraction(extractor, images)
    return Maker(open_extraction, extractor.name, images, params, root.absolute(), here=here)


def kept_statistics(path: Path) -> ReferenceStatistics:
    """Mean and covariance of the features in a file, computed once and kept beside it."""
    code = _imported(PACKAGE / STATISTICS)[:8]
    target = path.with_name(f"{path.stem}-{code}.npz")
    kept = _kept(target, lambda: _statistics_of(target, path))
    if kept is not None:
        return kept
    found = statistics(load_features(path).features)
    with shared_folder(path.parent):
        save_statistics(found, target)
        note_hash(target)
    return load_statistics(target)


def _statistics_of(target: Path, features: Path) -> ReferenceStatistics:
    """Statistics of the features in a file.

    Raises:
        ValueError: they are of other dimensions; or as `read_statistics`.
    """
    found = read_statistics(target)
    _, dimensions = features_size(features)
    if len(found.mu) != dimensions:
        raise ValueError(f"of {len(found.mu)} dimensions and not {dimensions}")
    return found
