"""The features of an image set are computed once, and kept in a file whose name is a hash of the
extractor's weights, of the images and of the code that leads from these to features. What is read
from there stays on the disk until it is used, and so those of ImageNet need no memory."""

import contextlib
import json
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, IMAGES
from pipeline.evaluation.features import Extractor, Features, extract, open_extractor
from pipeline.evaluation.images import BATCH, CenterCrops, ImageSet
from pipeline.evaluation.statistics import (
    ReferenceStatistics,
    load_statistics,
    save_statistics,
    statistics,
)
from pipeline.runtime.batches import Alone, Maker, drop_parts, load_tensors, make_parts
from pipeline.runtime.errors import cannot_write
from pipeline.runtime.files import atomic_file, remove_temporary, tree_hash, value_hash
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

_imported = cache(tree_hash)  # of code as it was imported: it may be edited while a stage runs
for name in (*CODE, STATISTICS):
    _imported(PACKAGE / name)


def load_features(path: Path) -> Features:
    """Read a file of features; what is not used is left on the disk. Raises as `load_tensors`."""
    return Features(**load_tensors(path))


@contextlib.contextmanager
def _making(path: Path) -> Iterator[None]:
    """While a file that several stages share is made: one process at a time is in the block.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.stem}.lock")).acquire()
    except OSError as error:
        raise cannot_write(path, error) from error
    with lock:
        remove_temporary(path.parent, path.name)
        yield


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
    """Features of an image set, read from their file, or computed if it is missing.

    Args:
        workers: who computes them; this process if None.
        maker: gives the `Extraction` to those.

    Raises:
        UserError: the images cannot be read, or the features not written.
    """
    path = features_path(images, extractor, cache_dir)
    if not path.exists():
        maker = maker or Maker(Extraction, extractor, images, here=Extraction(extractor, images))
        batches = [(start, min(start + PART, len(images))) for start in range(0, len(images), PART)]
        workers, name = workers or Alone(torch.device("cpu")), f"features: {extractor.name}"
        with _making(path):
            if not path.exists():  # another process may just have made it
                parts = make_parts({path: batches}, workers, maker, name)
                _join(parts[path], path)
            drop_parts(path)
    return load_features(path)


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
    return in_project(params.ray.folder) / "features"


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
    if not target.exists():
        found = statistics(load_features(path).features)
        with _making(target):
            save_statistics(found, target)
    return load_statistics(target)
