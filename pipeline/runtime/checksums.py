"""Hashes of the files in a folder, beside them in `SHA256SUMS` (`sha256sum -c` reads it), and the
look at them when a file is read: disks and copies change bits, and nothing else would notice.

In a run directory the list names it, in a comment, and beside the parts of a file that file: what
somebody copied there from another's, with its list, is none of its own.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.runtime.errors import UserError, cannot_write
from pipeline.runtime.files import (
    PARTS,
    SUMS,
    file_hash,
    read_file,
    remove,
    remove_temporary,
    write_json,
    write_text,
)
from pipeline.runtime.hashes import hash_now
from pipeline.runtime.limits import SUMS_BYTES
from pipeline.runtime.runs import KEY, own_folder

_NAME = re.compile(r"[0-9a-f]{16}")  # of a run directory
_OF = re.compile("# of (.*)")
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.*)")  # as `sha256sum` writes one, with or without -b


def note_hash(path: Path) -> None:
    """Note the hash of a finished file in its folder's list."""
    _write(path.parent, _read(path.parent, sure=True) | {path.name: file_hash(path)})


def disown(folder: Path) -> None:
    """Let the list of a folder that came from a run directory, and is published, be no run's."""
    _write(folder, _read(folder, sure=True), durable=True)


def write_noted(path: Path, value: Any) -> None:
    """Write a JSON file that is kept for a later run, and note its hash."""
    write_json(path, value)
    note_hash(path)


@contextlib.contextmanager
def shared_folder(folder: Path, lock_file: Path | None = None) -> Iterator[None]:
    """While a file is written to a folder that is no process's own, and its hash noted: one process
    at a time is in the block, so that what it finds half written is a killed one's, and removed.

    Args:
        lock_file: None for one in the folder. A folder that the block deletes has it elsewhere, or
            who waits would find none, or hold one that is gone.

    Raises:
        UserError: the folder cannot be written.
    """
    lock_file = lock_file or folder / ".lock"
    with contextlib.ExitStack() as held:
        try:
            lock_file.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(lock_file))
            if folder != lock_file.parent:
                own_folder(folder)
            remove_temporary(folder)
        except OSError as error:
            raise cannot_write(folder, error) from error
        yield


def as_noted(path: Path) -> bool:
    """Whether a file has the hash that was noted when it was finished; False where none was."""
    return path.is_file() and _read(path.parent).get(path.name) == hash_now(path)


def keep_if_whole(path: Path) -> bool:
    """Whether a file of an earlier, killed run is there and whole. A damaged one is removed, so
    that it is made again, and a line says so.

    Raises:
        UserError: the folder's list of hashes cannot be read, so that nobody knows.
    """
    if not os.path.lexists(path):
        return False
    if as_noted(path):
        return True
    _read(path.parent, sure=True)
    print(f"{path} is damaged or was not finished; it is made again", flush=True)
    remove(path)
    return False


def require_in_place(path: Path, way_out: str) -> None:
    """Look whether a file lies at a path, before it is opened: a pipe would hang.

    Raises:
        UserError: it is missing, or something else lies there; `way_out` ends the message.
    """
    if not path.is_file():
        raise UserError(f"{path} is {'no file' if path.exists() else 'missing'}; {way_out}")


def require_hash(path: Path, way_out: str, wanted: str | None = None) -> None:
    """Compare a file with its hash, once a process as long as size and time of the file stay.

    Args:
        wanted: the hash; None takes the noted one, and no notice where none was.

    Raises:
        UserError: the file is missing, or another than was written; `way_out` ends the message.
    """
    require_in_place(path, way_out)
    wanted = wanted or _read(path.parent).get(path.name)
    if wanted is not None and hash_now(path) != wanted:
        raise UserError(f"{path} is damaged: its bytes are not those that were written; {way_out}")


def noted_hashes() -> Callable[[Path], str]:
    """What tells the hash that was noted of a file, whose bytes are looked at when it is loaded; of
    one that has none, what it is now. Each list is read once."""
    noted = cache(_read)
    return lambda path: noted(path.parent).get(path.name) or file_hash(path)


def _write(folder: Path, sums: dict[str, str], durable: bool = False) -> None:
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    if owner := _owner(folder)[0]:
        text = f"# of {owner}\n{text}"
    write_text(folder / SUMS, text, durable=durable)


def _read(folder: Path, sure: bool = False) -> dict[str, str]:
    """The noted hash of each file; where the folder has an owner, only of the owner's files.

    Args:
        sure: whether nothing may be lost where the list cannot be read.

    Raises:
        UserError: it cannot, and nothing may be lost.
    """
    sums = folder / SUMS
    try:
        lines = read_file(sums, SUMS_BYTES).decode("utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):  # none yet, or damaged: nothing is known
        return {}
    except (OSError, UserError) as error:
        if not sure:
            return {}
        what = str(error).rpartition("; ")[0] or error  # its way out is not for a file of ours
        raise UserError(
            f"{what}: nobody knows whether what lies beside it is whole; make it readable, or "
            f"delete it to have all of that made again"
        ) from error
    (owner, sure), named = _owner(folder), _OF.fullmatch(lines[0]) if lines else None
    if owner and (named[1] != owner if named else sure):
        return {}
    found = (_LINE.fullmatch(line) for line in lines)
    return {line[2]: line[1].lower() for line in found if line}


def _owner(folder: Path) -> tuple[str, bool]:
    """The run directory that a folder is, or lies in, by its name, and the file whose parts the
    folder holds; whether it is sure, and no folder that is named like one. (On a node with a copy
    a run directory may lack its `key.json`.)"""
    whole, parts = folder.absolute(), folder.name.endswith(PARTS)
    file = [whole.name.removesuffix(PARTS)] if parts else []
    whole = whole.parent if parts else whole
    run = next((path for path in (whole, whole.parent) if _NAME.fullmatch(path.name)), None)
    owner = "/".join([run.name, *file] if run else file)
    return owner, parts or (run is not None and (run / KEY).exists())
