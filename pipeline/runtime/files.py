"""Writes that are whole or do not happen, content hashes, and small file formats."""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError, cannot_write
from pipeline.runtime.limits import JSON_BYTES, SEED, YAML_BYTES

PARTS = ".parts"  # ends the name of a folder with the batches of a file, until it is whole
# What Python, editors and file managers put into folders, as .dvcignore has it.
IGNORED = (
    *("__pycache__", ".ipynb_checkpoints", ".DS_Store", "Thumbs.db"),
    *(".*.sw?", "*~", ".#*", ".nfs*"),
)


def temporary_beside(path: Path) -> Path:
    """A new name, of a file that `remove_temporary` finds where its writer is killed."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def remove_temporary(folder: Path, name: str = "*", *, below: bool = False) -> None:
    """Remove what killed writers of a file or folder of that name left in the folder, and `below`
    it. No other process may be writing there."""
    pattern = f".{name}.{'[0-9a-f]' * 8}.tmp"
    for path in list(folder.rglob(pattern) if below else folder.glob(pattern)):
        remove(path)


def remove(path: Path) -> None:
    """Remove whatever lies at a path: a folder with all in it; of a link the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`, which is removed after the block."""
    folder = temporary_beside(path)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def look_again(folder: Path) -> None:
    """Open a folder, and those in it: only then does a client of NFS ask again for another
    machine's file that it did not find before."""
    for _ in os.walk(folder):
        pass


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_file(path: Path | str, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the final name only if the block succeeds.

    Args:
        durable: wait for the disk, so that a machine that loses power leaves the old content or the
            new. What is compared with a hash and can be made again need not wait.

    Raises:
        UserError: the file cannot be written (disk full, read-only folder), or is a device or pipe,
            which it would replace.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path} is a pipe, socket or device; delete it, or give another path")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            to_disk(temporary)
        os.replace(temporary, path)
        if durable:
            to_disk(path.parent)
    except OSError as error:
        raise UserError(cannot_write(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str, durable: bool = True) -> None:
    with atomic_file(path, durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any, durable: bool = True) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n", durable)


def require_file(path: Path | str, most: int | None = None) -> None:
    """Look at what lies at a path before it is opened: a FIFO would hang, a device never end.

    Args:
        most: bytes that the file may have; None for any number.

    Raises:
        FileNotFoundError: there is nothing at the path.
        UserError: it is no regular file, larger than `most`, or cannot be reached.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}); check the path") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, socket or device"
        raise UserError(f"{path} is {kind} and not a file; put the file in its place")
    # One of the system's says that it is empty, and may never end, or never begin.
    if not found.st_size and os.path.realpath(path).startswith("/proc/"):
        raise UserError(f"{path} is a file of the system; put a file of yours in its place")
    if most is not None and found.st_size > most:
        raise UserError(
            f"{path} has {found.st_size:,} bytes, more than the limit of {most:,} "
            f"(docs/limits.md); give a smaller file"
        )


def read_file(path: Path | str, most: int | None = None) -> bytes:
    """The content of a regular file. Raises as `require_file`, and where it cannot be read."""
    require_file(path, most)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path") from error


def read_json(
    path: Path | str,
    *keys: str,
    most: int = JSON_BYTES,
    way_out: str = "delete it and run again",
) -> Any:
    """Read a JSON file.

    Args:
        keys: that the mapping in it has to have.
        most: bytes that the file may have.
        way_out: ends the message where it is damaged.

    Raises:
        UserError: it is missing, larger, not JSON, has a key twice, or lacks one of the keys.
    """
    try:
        value = json.loads(read_file(path, most).decode("utf-8"), object_pairs_hook=distinct)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run `dvc repro` to make it") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {way_out}") from error
    lacking = [key for key in keys if not isinstance(value, dict) or key not in value]
    if lacking:
        raise UserError(f"{path} is damaged: it has no {lacking[0]}; {way_out}")
    return value


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping of what a file lists. Of two values of one name each reader takes its own.

    Raises:
        ValueError: there are two of one name.
    """
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name[:100]} is in its list twice")
    return mapping


def read_yaml(path: Path) -> dict:
    """Read a YAML 1.2 file, as DVC does (so that 1e-4 is a number).

    Raises:
        UserError: it is missing, too large, not YAML, or not a mapping.
    """
    from pipeline.runtime.yaml import NotYaml, parse_yaml

    try:
        values = _copied(parse_yaml(read_file(path, YAML_BYTES).decode("utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run from the project's root folder") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: it is no text in UTF-8; save it so") from error
    except NotYaml as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(
            f"{path} must hold sections of key: value pairs; `maskgit preset mnist5k` writes one"
        )
    return values


def as_written(value: Any) -> Any:
    """A value as `write_csv` writes it."""
    return float(f"{value:.10g}") if isinstance(value, float) else value


def _copied(value: Any) -> Any:
    """Nested mappings and lists, five times as fast as by `copy`: a stage reads dvc.yaml again and
    again."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def write_csv(
    path: Path | str, rows: list[dict[str, Any]], columns: list[str] | None = None
) -> None:
    """Write rows as CSV; floats keep 10 significant digits, enough to tell runs apart, and a column
    of whole numbers all of theirs: seeds may have more.

    Args:
        columns: in order; without them those of the rows. With them no rows give a header.
    """
    import pandas as pd

    table = pd.DataFrame(rows, columns=columns)
    for name, column in table.select_dtypes("float").items():  # whole ones too, if a cell is empty
        if ((column.dropna() % 1 == 0) & (column.dropna().abs() <= SEED)).all():
            table[name] = column.astype("Int64")
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g")


def write_npz(path: Path | str, arrays: Mapping[str, Any]) -> None:
    """Write NumPy arrays as a compressed `.npz`."""
    import numpy as np

    with atomic_file(path) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, **arrays)


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file's bytes, as hex; errors are those of `require_file`."""
    require_file(path)
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def tree_hash(path: Path | str, hash_of: Callable[[Path], str] = file_hash) -> str:
    """Content hash of a file, or of a folder: of every file in it, but for `IGNORED` ones and those
    whose own content hashes stand in its `manifest.json`.

    Args:
        hash_of: the hash of a file.

    Raises:
        UserError: there is nothing at the path, or no file that can be read.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    if not path.is_dir():
        return hash_of(path)
    manifest = path / "manifest.json"
    named = read_file(manifest, JSON_BYTES).decode("utf-8", "replace") if manifest.exists() else ""
    files = (f for f in path.rglob("*") if f.is_file())
    files = (f for f in files if not any(map(is_ignored, f.relative_to(path).parts)))
    # In quotes, as the manifest names a file: not as a part of another's name.
    hashed = [f for f in sorted(files) if f'"{f.relative_to(path)}"' not in named]
    if hashed == [manifest]:
        return hash_of(manifest)
    return value_hash({str(f.relative_to(path)): hash_of(f) for f in hashed})


def is_ignored(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in IGNORED)


def value_hash(value: Any) -> str:
    """SHA-256 of a JSON-serialisable value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
