"""Where the splits and classes of a folder of pictures lie."""

import unicodedata
from collections import defaultdict
from pathlib import Path

from pipeline.runtime.errors import UserError

TRAIN = ("train", "training")
HELD_OUT = (("val", "valid", "validation"), ("test",))  # of the second only where the first is not
SPLITS = {*TRAIN, *HELD_OUT[0], *HELD_OUT[1]}
# Folders that programs make for themselves, besides those that begin with a dot: of macOS, Windows,
# Linux, Python and of NAS's.
_MADE = {"__macosx", "$recycle.bin", "system volume information", "lost+found", "__pycache__"}
_MADE |= {"@eadir", "@recycle", "#recycle", "#snapshot"}


def splits(root: Path) -> dict[str | None, Path]:
    """The folder of each split, or of everything (None)."""
    for entry in root.iterdir():
        if entry.name.lower() in SPLITS and entry.is_symlink() and not entry.exists():
            raise UserError(
                f"data.source: {entry} is named as a split and is a broken link; mend or delete it"
            )
    by_name: dict[str, list[Path]] = defaultdict(list)
    for folder in class_folders(root):
        by_name[folder.name.lower()].append(folder)

    def one(names: tuple[str, ...]) -> Path | None:
        found = [folder for name in names for folder in by_name[name]]
        if len(found) > 1:
            both = " and ".join(f"{folder.name}/" for folder in found)
            raise UserError(f"data.source: {root} has {both}, which mean the same; keep one")
        return found[0] if found else None

    train = one(TRAIN)
    val = one(HELD_OUT[0]) or one(HELD_OUT[1])
    if train and val:
        return {"train": train, "val": val}
    if val:
        raise UserError(
            f"data.source: {root} has {val.name}/ and no train/; add it, or rename {val.name}/ if "
            f"it is a class"
        )
    return {None: train or root}


def class_folders(folder: Path) -> list[Path]:
    """The subfolders that a person has made, in order."""
    return sorted(each for each in folder.iterdir() if each.is_dir() and not hidden(each.name))


def composed(name: str) -> str:
    """A name as it looks: an accent may be a character of its own, or one with its letter."""
    return unicodedata.normalize("NFC", name)


def hidden(name: str) -> bool:
    """Whether a program has made it, for itself."""
    return name.startswith(".") or name.lower() in _MADE
