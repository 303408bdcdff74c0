"""Folders of pictures with one subfolder for each class, with or without splits."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from PIL import Image

from pipeline.data.images.shards import Item
from pipeline.prepare.pictures import (
    FORMATS,
    HEIF_SUFFIXES,
    HEIF_WAY_OUT,
    read_picture,
    stored_file,
)
from pipeline.runtime.errors import UserError, printable
from pipeline.runtime.files import value_hash

TRAIN = ("train", "training")
VAL, TEST = ("val", "valid", "validation"), ("test",)  # TEST is used if there is no VAL
# Folders that macOS, Windows, Linux, Python and network drives make, besides those with a dot.
HIDDEN = {"__macosx", "$recycle.bin", "system volume information", "lost+found", "__pycache__"}
HIDDEN |= {"@eadir", "@recycle", "#recycle", "#snapshot"}
CHECKED = 256  # validation pictures that are looked for among the training pictures


class FolderSource:
    """A folder with one subfolder for each class; `train/` and `val/` (or `valid/`, `validation/`,
    else `test/`) may lie above the classes.

    Args:
        root: the folder.
        side: the largest shorter side of a stored picture in pixels.

    Raises:
        UserError: the folder does not exist, a class has no pictures, the splits have different
            classes, a picture has a format that is not supported, or the validation pictures are
            training pictures too.
    """

    def __init__(self, root: Path, side: int):
        self._side = side
        self.items: list[Item] = []
        self._paths: list[Path] = []
        try:
            self._list(root)
        except OSError as error:  # no permission, or too long a path
            place = f"{error.filename or root} cannot be read ({error.strerror})"
            raise UserError("data.source", place, "change its permissions, or delete it") from error

    def _list(self, root: Path) -> None:
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise UserError("data.source", f"{root} {what}", "give an existing folder")
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
            found = {each.name for each in _subfolders(folder)}
            if odd := sorted(found.symmetric_difference(names)):
                reason = f"training and validation in {root} have different classes: {odd}"
                raise UserError("data.source", reason, "add the missing folders, or delete these")
            for label, name in enumerate(names):
                pictures = []
                for path in _files(folder / name):
                    suffix = path.suffix.lower()
                    kind = Image.registered_extensions().get(suffix)
                    if kind in FORMATS:
                        pictures.append(path)
                    elif kind in Image.OPEN or suffix in HEIF_SUFFIXES:
                        refused.append(path)
                    else:
                        skipped[printable(suffix) or "without a suffix"] += 1
                if not pictures and not refused:
                    reason = f"the class folder {folder / name} has no pictures"
                    raise UserError("data.source", reason, "add some, or delete the folder")
                keys = [printable(str(path.relative_to(root))) for path in pictures]
                self.items += [Item(key, label, split) for key in keys]
                self._paths += pictures
        if refused:
            some = ", ".join(map(str, refused[:3])) + (", …" if refused[3:] else "")
            reason = f"{len(refused)} pictures have an unsupported format ({some})"
            heif = any(path.suffix.lower() in HEIF_SUFFIXES for path in refused)
            way_out = HEIF_WAY_OUT if heif else "convert them to PNG or JPEG, or delete them"
            raise UserError("data.source", reason, way_out)
        if skipped:
            kinds = ", ".join(f"{count} {kind}" for kind, count in skipped.most_common(8))
            print(f"data.source: files that are not pictures are skipped: {kinds}", flush=True)
        if None not in splits:
            self._refuse_duplicates(root)

    def _refuse_duplicates(self, root: Path) -> None:
        """Refuse a validation split that consists of training pictures, since every metric would be
        meaningless. An evenly spaced selection of the validation pictures is checked."""
        count = sum(item.split == "train" for item in self.items)
        train, val = self._paths[:count], self._paths[count:]
        val = val[:: max(1, len(val) // CHECKED)]
        sizes = {path.stat().st_size for path in val}
        known = {_digest(path) for path in train if path.stat().st_size in sizes}
        found = sum(_digest(path) in known for path in val)
        if found == len(val):
            reason = f"validation in {root} has the same pictures as training"
            way_out = "use other pictures, or delete the folder: data.val_fraction is then held out"
            raise UserError("data.source", reason, way_out)
        if found:
            print(
                f"data.source: {found} of {len(val)} validation pictures that were checked are "
                f"training pictures too, which makes validation metrics too good",
                flush=True,
            )

    @cached_property
    def version(self) -> str:
        found = [path.stat() if path.exists() else None for path in self._paths]
        return value_hash([(s.st_size, s.st_mtime_ns) if s else None for s in found])

    def read(self, index: int) -> bytes:
        return stored_file(self._paths[index], self._side)


def _splits(root: Path) -> dict[str | None, Path]:
    """The folder of each split, or of the whole data set (None)."""
    folders = _subfolders(root)

    def one(names: tuple[str, ...]) -> Path | None:
        found = [folder for folder in folders if folder.name.lower() in names]
        if len(found) > 1:
            reason = f"{found[0]} and {found[1]} are the same split"
            raise UserError("data.source", reason, "rename or remove one of them")
        return found[0] if found else None

    train, val = one(TRAIN), one(VAL) or one(TEST)
    if val and not train:
        way_out = f"add train/, or rename {val.name}/ if it is a class"
        raise UserError("data.source", f"{root} has {val.name}/ and no train/", way_out)
    others = [folder.name for folder in folders if folder not in (train, val)]
    if train and others:
        print(f"data.source: folders beside {train} are skipped: {others}", flush=True)
    if train and val:
        return {"train": train, "val": val}
    return {None: train or root}


def _subfolders(folder: Path) -> list[Path]:
    """The subfolders in order, without those that systems create."""
    return sorted(each for each in folder.iterdir() if each.is_dir() and not _hidden(each.name))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in HIDDEN


def _files(folder: Path) -> Iterator[Path]:
    """All files in a folder and its subfolders. Links to folders are counted but not followed."""
    for path in sorted(folder.iterdir()):
        if not _hidden(path.name) and not path.is_dir():
            yield path
        elif not _hidden(path.name) and not path.is_symlink():
            yield from _files(path)


def _digest(path: Path) -> bytes:
    return hashlib.sha256(read_picture(path)).digest()
