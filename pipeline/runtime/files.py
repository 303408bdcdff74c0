"""Writes files and folders atomically, reads and writes JSON, YAML and CSV, and hashes files."""

import contextlib
import copy
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError, cannot_write
from pipeline.runtime.limits import SEED, YAML_BYTES

# Files that Python, editors and file managers create; .dvcignore lists the same patterns.
IGNORED = ["__pycache__", ".ipynb_checkpoints", ".DS_Store", "Thumbs.db"]
IGNORED += [".*.sw?", "*~", ".#*", ".nfs*"]


def temporary_beside(path: Path) -> Path:
    """A new temporary path beside `path`, with a name that `remove_temporary` recognizes."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def remove_temporary(folder: Path, name: str = "*", *, below: bool = False) -> None:
    """Remove unfinished versions of `name` (default: of everything) that killed processes left in
    `folder` and, if `below` is true, in its subfolders too. No process may be writing there."""
    pattern = f".{name}.{'[0-9a-f]' * 8}.tmp"
    for path in list(folder.rglob(pattern) if below else folder.glob(pattern)):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a new temporary folder beside `path`, and remove it after the block."""
    folder = temporary_beside(path)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` if the block succeeds. Raises a
    `UserError` if the file cannot be written (full disk, read-only folder)."""
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder, which replaces `path` if the block succeeds; see `atomic_file`."""
    path = Path(path)
    try:
        with temporary_folder(path) as temporary:
            new = temporary / "new"
            new.mkdir()
            yield new
            for folder, _, names in os.walk(new):
                for name in names:
                    to_disk(Path(folder, name))
            if os.path.lexists(path):
                os.replace(path, temporary / "old")
            os.replace(new, path)
    except OSError as error:
        raise cannot_write(path, error) from error


def publish_folder(source: Path, target: Path, *, keep: bool = False) -> None:
    """Write a finished folder to `target`, as hard links or, on another file system, as copies. If
    this succeeds, delete `source`, unless `keep` is true."""
    with atomic_folder(target) as new:
        shutil.copytree(source, new, dirs_exist_ok=True, copy_function=link_or_copy)
    if not keep:
        shutil.rmtree(source, ignore_errors=True)


def link_or_copy(source: Path | str, target: Path | str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or no support for links
        shutil.copy2(source, target)


def to_disk(path: Path) -> None:
    """Flush a file to the disk. Without this, a power cut could lose a renamed file."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def require_new(folder: Path) -> None:
    """Raise a `UserError` if the path exists and is not an empty folder."""
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder; choose a new path")


def require_file(path: Path | str, most: int | None = None) -> None:
    """Raise a FileNotFoundError if a path does not exist, and a `UserError` if it is not a readable
    regular file (reading a pipe would hang) or has more than `most` bytes."""
    path = Path(path)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise UserError(str(path), reason, "check the path") from error
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or pipe"
        raise UserError(str(path), f"{kind}, not a regular file", "give a regular file")
    if most is not None and size > most:
        reason = f"{size:,} bytes, more than the limit of {most:,} (docs/limits.md)"
        raise UserError(str(path), reason, "give a smaller file")
    if not os.access(path, os.R_OK):
        raise UserError(str(path), "cannot be read (Permission denied)", "change the permissions")


def read_file(path: Path | str, most: int | None = None) -> bytes:
    """Read a regular file. Raises the errors of `require_file`."""
    require_file(path, most)
    return Path(path).read_bytes()


def write_text(path: Path | str, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path | str, *keys: str, way_out: str = "delete the file and rerun") -> Any:
    """Read a JSON file. Raises a `UserError` if it is missing, not JSON, or lacks one of `keys`."""
    try:
        value = json.loads(read_file(path).decode("utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run `dvc repro` to make it") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {way_out}") from error
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            raise UserError(f"{path} is damaged: it has no key {key}; {way_out}")
    return value


def read_yaml(path: Path) -> dict:
    """Read a YAML mapping. Raises a `UserError` if the file is missing, too large or invalid."""
    try:
        values = copy.deepcopy(parse_yaml(read_file(path, YAML_BYTES).decode("utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run the command in the project folder") from error
    except ValueError as error:  # invalid YAML, or not UTF-8
        raise UserError(str(path), f"not valid YAML ({error})", "correct the file") from error
    if not isinstance(values, dict):
        reason = "holds no sections of key: value pairs"
        raise UserError(str(path), reason, "`maskgit preset mnist5k` writes a valid file")
    return values


@lru_cache(maxsize=4)  # a stage reads dvc.yaml and params.yaml many times
def parse_yaml(text: str) -> Any:
    """Parse a YAML document, or raise a ValueError that gives the position of the mistake. Results
    are cached, so callers must not change them."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}"
        raise ValueError(f"{where}: {error.problem or error.context}") from error


def as_written(value: Any) -> Any:
    """Round a float to 10 significant digits, like `write_csv`; return other values unchanged."""
    return float(f"{value:.10g}") if isinstance(value, float) else value


def write_csv(path: Path | str, rows: list[dict], columns: list[str] | None = None) -> None:
    """Write rows as CSV: floats with 10 significant digits, whole numbers such as seeds with all
    digits. With `columns`, the file has a header even without rows."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=columns)
    for name, column in table.select_dtypes("float").items():  # and integers beside empty cells
        if ((column.dropna() % 1 == 0) & (column.dropna().abs() <= SEED)).all():
            table[name] = column.astype("Int64")
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g")


def write_npz(path: Path | str, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    with atomic_file(path) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, **arrays)


def file_hash(path: Path | str) -> str:
    """The SHA-256 hash of a file, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def value_hash(value: Any) -> str:
    """The SHA-256 hash of a JSON-serialisable value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def tree_hash(path: Path | str, hash_of: Callable[[Path], str] = file_hash) -> str:
    """The hash of a file or folder. A folder's hash leaves out backups and caches (`IGNORED`), and
    files whose hashes its `manifest.json` lists. Raises a `UserError` if the path is missing."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    if path.is_file():
        return hash_of(path)
    manifest = path / "manifest.json"
    known = manifest.read_text(encoding="utf-8") if manifest.exists() else ""
    hashes = {}
    for file in path.rglob("*"):
        name = file.relative_to(path)
        # Search with quotes, because the name may be a part of another file's name.
        if file.is_file() and not is_ignored(name) and f'"{name}"' not in known:
            hashes[str(name)] = hash_of(file)
    return hashes[manifest.name] if list(hashes) == [manifest.name] else value_hash(hashes)


def is_ignored(path: Path) -> bool:
    return any(fnmatchcase(part, pattern) for part in path.parts for pattern in IGNORED)
