"""Folders of pictures as people have them: with splits under several names, and with files beside
the pictures that are none."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from pipeline.data.images.opening import picture_suffixes
from pipeline.prepare.files import read_picture
from pipeline.prepare.layout import SPLITS, TRAIN, class_folders, composed, hidden, splits
from pipeline.prepare.source import Item
from pipeline.runtime.errors import UserError, printable
from pipeline.runtime.files import read_file, require_file, value_hash
from pipeline.runtime.limits import PICTURE_BYTES

KINDS = 8  # of files that a line names
LOOKED_AT = 256  # validation images that are looked for among the training images


class FolderSource:
    """A folder with one subfolder a class; `train/` and `val/` (or `valid/`, `validation/`, else
    `test/`) above them if any. Names are told apart whatever their case.

    Raises:
        UserError: there is no such folder or none of classes in it, a class is empty, has splits of
            its own or no name that can be shown, two names are shown alike, validation has the
            images of training, a class has the folder of another or lies in it, or a folder links
            back to one that it lies in.
    """

    def __init__(self, root: Path):
        try:
            self._open(root)
        except RecursionError as error:
            raise UserError(f"data.source: folders in {root} lie in too many others") from error
        except (OSError, ValueError) as error:  # a path that is too long, no permission
            reason = getattr(error, "strerror", None) or error
            place = Path(getattr(error, "filename", None) or root)
            way_out = "give another" if place == root else "change its permissions, or delete it"
            raise UserError(f"data.source: {place} cannot be read ({reason}); {way_out}") from error

    def _open(self, root: Path) -> None:
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise UserError(f"data.source: folder {root} {what}; give an existing folder")
        self._root, self._suffixes = root, picture_suffixes()
        self._skipped: Counter[str] = Counter()
        folders = splits(root)
        self._first = first = next(iter(folders.values()))
        classes = class_folders(first)
        if not classes:
            why = "" if first == root else " (it is taken for a split, by its name)"
            raise UserError(
                f"data.source: {first} has no class folders{why}; put each class in its own"
            )
        self._refuse_links(folders.values())
        self._refuse_splits_below(classes)
        self.class_names = [printable(folder.name) for folder in classes]
        if "" in (name.strip() for name in self.class_names):
            raise UserError(f"data.source: a class folder in {first} has a blank name; rename it")
        self._refuse_alike([composed(name) for name in self.class_names])
        self.items: list[Item] = []
        self._paths: list[Path] = []
        for split, folder in folders.items():
            self._list(folder, [each.name for each in classes], split)
        self._refuse_alike([item.key for item in self.items])
        if self._skipped:
            most = self._skipped.most_common(KINDS)
            kinds = ", ".join(f"{count} {kind}" for kind, count in most)
            more = f" and {n} kinds more" if (n := len(self._skipped) - len(most)) else ""
            total = self._skipped.total()
            print(
                f"data.source: {total} files skipped, which are no pictures: {kinds}{more}",
                flush=True,
            )
        self._tell_of_loose({root, *folders.values()})
        if first != root:
            self._tell_of_others({folder.name for folder in folders.values()})
        self._tell_of_one(classes)
        if None in folders:
            self._refuse_copies_alone()
        else:
            self._refuse_copies()

    def _tell_of_others(self, splits: set[str]) -> None:
        """A line of the folders beside the splits, of which a user may take one for a split."""
        others = sorted({folder.name for folder in class_folders(self._root)} - splits)
        if others:
            print(
                f"data.source: {printable(', '.join(others))[:200]} in {self._root} passed over, "
                f"beside {' and '.join(sorted(splits))}",
                flush=True,
            )

    def _tell_of_loose(self, folders: set[Path]) -> None:
        """A line of the pictures that lie beside class folders, in no class."""
        files = [path for folder in folders for path in folder.iterdir() if not path.is_dir()]
        count = sum(path.suffix.lower() in self._suffixes for path in files)
        if count:
            print(
                f"data.source: {count} pictures beside the class folders of {self._root} passed "
                f"over, since they are of no class",
                flush=True,
            )

    def _tell_of_one(self, classes: list[Path]) -> None:
        """A line where one class holds folders alone: they may be what was meant."""
        if len(classes) == 1 and all(path.is_dir() for path in classes[0].iterdir()):
            print(
                f"data.source: all pictures are of one class, {classes[0]}; give that folder if "
                f"the folders in it are classes",
                flush=True,
            )

    def _refuse_links(self, folders: Iterable[Path]) -> None:
        """Refuse classes that link to a folder which they lie in, or to pictures of another class:
        these would have both labels.

        Args:
            folders: of classes, one a split.
        """
        by_place: dict[Path, Path] = {}
        for folder in (each for split in folders for each in class_folders(split)):
            target = folder.resolve()
            if folder.parent.resolve().is_relative_to(target):
                raise UserError(f"data.source: {folder} links back to {target}; delete the link")
            other = by_place.setdefault(target, folder)
            if composed(other.name) != composed(folder.name):
                raise UserError(
                    f"data.source: {folder} is another class's folder too ({other}); delete one"
                )
        for place, folder in by_place.items():
            for above in (above for above in place.parents if above in by_place):
                other = by_place[above]
                seen = not any(map(hidden, place.relative_to(above).parts))
                if seen and composed(other.name) != composed(folder.name):
                    raise UserError(
                        f"data.source: {folder} lies in another class's folder, {other}; delete one"
                    )

    def _refuse_splits_below(self, classes: list[Path]) -> None:
        """Refuse classes that have splits of their own, which would be mixed: the folder is one too
        high, or the splits lie below the classes and not above them."""
        for folder in classes:
            named = [name for name in os.listdir(folder) if name.lower() in SPLITS]
            inside = {name.lower() for name in named if (folder / name).is_dir()}
            if inside & set(TRAIN) and (inside - set(TRAIN) or len(classes) == 1):
                raise UserError(
                    f"data.source: {folder} has splits of its own and would be one class; give "
                    f"that folder, or put the splits above the classes"
                )

    def _refuse_alike(self, shown: list[str]) -> None:
        """Refuse names that differ in what is shown as an escape alone, of which one would stand
        for both: classes are told apart by their names, and images by their keys."""
        for name, times in Counter(shown).most_common(1):
            if times > 1:
                raise UserError(
                    f"data.source: {times} names in {self._root} are shown as {name}; rename one"
                )

    def _list(self, folder: Path, classes: list[str], split: str | None) -> None:
        links = [each for each in folder.iterdir() if each.is_symlink() and not each.exists()]
        self._skipped += Counter({"broken links in the place of classes": len(links)})
        extra = {each.name for each in class_folders(folder)} - set(classes)
        for name in extra:
            if composed(name) in map(composed, classes):
                raise UserError(
                    f"data.source: {folder / name} has its accents composed otherwise than in "
                    f"train (Unicode's NFC and NFD); rename one, as `convmv` does"
                )
        if extra:
            raise UserError(
                f"data.source: {folder} has classes that train has not: {sorted(extra)}; delete "
                f"them, or add them to train"
            )
        for label, name in enumerate(classes):
            skipped: Counter[str] = Counter()
            paths = sorted(self._pictures(folder / name, skipped))
            self._skipped += skipped
            if not (folder / name).is_dir():
                raise UserError(
                    f"data.source: {folder} has no class folder {name}, which train has; add "
                    f"it, or remove it there"
                )
            if not paths:
                without = f" (only {', '.join(skipped)})" if skipped else ""
                raise UserError(
                    f"data.source: class folder {folder / name} has no images{without}; add some, "
                    f"converted to PNG or JPEG, or delete the folder"
                )
            self._paths += paths
            keys = (printable(str(path.relative_to(self._root))) for path in paths)
            self.items += [Item(key, label, split) for key in keys]

    def _pictures(self, folder: Path, skipped: Counter[str]) -> Iterator[Path]:
        """Files of a class that are named as pictures; the others are counted by kind. Links to
        folders are not followed, so that none leads round in a circle."""
        if not folder.is_dir():
            return
        for place, inner, names in os.walk(folder, onerror=_raise):
            linked = [name for name in inner if Path(place, name).is_symlink()]
            skipped.update({"linked folders": len(linked)} if linked else {})
            inner[:] = [name for name in inner if not hidden(name)]
            # A folder that is named as a picture is a mistake, which reading it reports.
            named = [name for name in inner if Path(name).suffix.lower() in self._suffixes]
            for name in names + named:
                suffix = Path(name).suffix.lower()
                if hidden(name):
                    skipped["hidden"] += 1
                elif suffix in self._suffixes:
                    yield Path(place, name)
                else:
                    skipped[printable(suffix)[:20] or "without a suffix"] += 1

    def _refuse_copies(self) -> None:
        """Refuse a validation split that training has seen: everything measured on it would be of
        no worth. Of a large split an even selection is looked at."""
        held_out = self._regular("val")
        chosen = held_out[:: max(1, len(held_out) // LOOKED_AT)]
        found = sum(times > 0 for times in _times_found(chosen, self._regular("train")))
        if found and found == len(chosen):
            raise UserError(
                f"data.source: validation in {self._root} has the same images as training; give it "
                f"others, or delete its folder (data.val_fraction then holds some out)"
            )
        if found:
            print(
                f"data.source: {found} of {len(chosen)} validation images that were looked at are "
                f"training images too, so what is measured on them flatters",
                flush=True,
            )

    def _refuse_copies_alone(self) -> None:
        """The same without splits: where every image has a copy, however they are split, training
        has seen most of validation. Of some copies a line tells."""
        paths = self._regular(None)
        chosen = paths[:: max(1, len(paths) // LOOKED_AT)]
        found = sum(times > 1 for times in _times_found(chosen, paths))
        if found and found == len(chosen):
            raise UserError(
                f"data.source: every image in {self._root} that was looked at has a copy, so "
                f"validation would have the images of training; delete the copies"
            )
        if found:
            print(
                f"data.source: {found} of {len(chosen)} images that were looked at have copies, of "
                f"which training may have one and validation another; what is measured on those "
                f"flatters",
                flush=True,
            )

    def _regular(self, split: str | None) -> list[Path]:
        """Files of a split that can be read; what is wrong with the others, reading them tells."""
        pairs = zip(self.items, self._paths, strict=True)
        paths = (path for item, path in pairs if item.split == split)
        return [path for path in paths if _is_regular(path)]

    @cached_property
    def version(self) -> str:
        found = [path.stat() if path.exists() else None for path in self._paths]
        return value_hash([(s.st_size, s.st_mtime_ns) if s else None for s in found])

    def read(self, index: int) -> bytes:
        return read_picture(self._paths[index])


def _times_found(wanted: list[Path], files: list[Path]) -> list[int]:
    """How many of the files have the content of each of the wanted ones."""
    sizes = {path.stat().st_size for path in wanted}
    digests = Counter(_digest(path) for path in files if path.stat().st_size in sizes)
    return [digests[_digest(path)] for path in wanted]


def _is_regular(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        require_file(path, PICTURE_BYTES)
    except UserError:
        return False
    return True


def _digest(path: Path) -> bytes:
    return hashlib.sha256(read_file(path, PICTURE_BYTES)).digest()


def _raise(error: OSError) -> NoReturn:
    raise error
