"""Files that are written whole or not at all, content hashes, and small file formats."""

import contextlib
import copy
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError, cannot_write
from pipeline.runtime.limits import SEED, YAML_BYTES

PARTS = ".parts"  # ends the name of a folder with the batches of a file, until it is whole
# Files that Python, editors and file managers put into folders, as in .dvcignore.
IGNORED = (
    *("__pycache__", ".ipynb_checkpoints", ".DS_Store", "Thumbs.db"),
    *(".*.sw?", "*~", ".#*", ".nfs*"),
)


def temporary_beside(path: Path) -> Path:
    """A new name beside `path`; `remove_temporary` finds it if its writer is killed."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def remove_temporary(folder: Path, name: str = "*", *, below: bool = False) -> None:
    """Remove what killed writers of a file or folder of that name left in the folder, and `below`
    it. No other process may be writing there."""
    pattern = f".{name}.{'[0-9a-f]' * 8}.tmp"
    for path in list(folder.rglob(pattern) if below else folder.glob(pattern)):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its content; nothing if there is none."""
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
    """List a folder and those in it, so that an NFS client sees other machines' new files."""
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
        durable: wait for the disk, so that the file is whole even after a power failure. Files
            that are checked by a hash and can be made again need not wait.

    Raises:
        UserError: the file cannot be written (disk full, read-only folder).
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            to_disk(temporary)
        os.replace(temporary, path)
        if durable:
            to_disk(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str, durable: bool = True) -> None:
    with atomic_file(path, durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any, durable: bool = True) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n", durable)


def require_file(path: Path | str, most: int | None = None) -> None:
    """Check a file that a user named before it is opened: a pipe would hang.

    Args:
        most: limit of its size in bytes; None for no limit.

    Raises:
        FileNotFoundError: there is nothing at the path.
        UserError: it is not a regular file, is larger than `most`, or cannot be reached.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(str(path), f"cannot be read ({reason})", "check the path") from error
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or pipe"
        raise UserError(str(path), f"{kind}, not a regular file", "give a regular file")
    if most is not None and size > most:
        reason = f"{size:,} bytes, more than the limit of {most:,} (docs/limits.md)"
        raise UserError(str(path), reason, "give a smaller file")


def read_file(path: Path | str, most: int | None = None) -> bytes:
    """The content of a regular file. Raises as `require_file`, and where it cannot be read."""
    require_file(path, most)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise UserError(str(path), reason, "check the path and its permissions") from error


def read_json(
    path: Path | str,
    *keys: str,
    most: int | None = None,
    way_out: str = "delete it and run again",
) -> Any:
    """Read a JSON file.

    Args:
        keys: that the mapping in it must have.
        most: limit of its size in bytes.
        way_out: ends the message if the file is damaged.

    Raises:
        UserError: it is missing, too large, not JSON, has a key twice, or lacks one of the keys.
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
    """The mapping of the pairs; of a key that is there twice JSON readers differ on the value.

    Raises:
        ValueError: a key is there twice.
    """
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name[:100]} is in its list twice")
    return mapping


def read_yaml(path: Path) -> dict:
    """Read a YAML file of sections.

    Raises:
        UserError: it is missing, too large, not YAML, or not a mapping.
    """
    from pipeline.runtime.files import parse_yaml

    try:
        values = copy.deepcopy(parse_yaml(read_file(path, YAML_BYTES).decode("utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run from the project's root folder") from error
    except ValueError as error:  # of the text, or of its encoding
        raise UserError(str(path), f"not valid YAML ({error})", "correct it there") from error
    if not isinstance(values, dict):
        reason = "must hold sections of key: value pairs"
        raise UserError(str(path), reason, "`maskgit preset mnist5k` writes one")
    return values


def as_written(value: Any) -> Any:
    """A value as `write_csv` writes it."""
    return float(f"{value:.10g}") if isinstance(value, float) else value


def write_csv(
    path: Path | str, rows: list[dict[str, Any]], columns: list[str] | None = None
) -> None:
    """Write rows as CSV. Floats get 10 significant digits; columns of whole numbers, such as
    seeds, get all digits.

    Args:
        columns: in order; None for those of the rows. With columns, no rows give a header.
    """
    import pandas as pd

    table = pd.DataFrame(rows, columns=columns)
    for name, column in table.select_dtypes("float").items():  # pandas' type if a cell is empty
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
    """SHA-256 of a file's bytes, as hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def tree_hash(path: Path | str, hash_of: Callable[[Path], str] = file_hash) -> str:
    """Content hash of a file, or of all files in a folder, except for `IGNORED` ones and those
    whose own hashes are in its `manifest.json`.

    Args:
        hash_of: the hash of a file.

    Raises:
        UserError: there is nothing at the path.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    if not path.is_dir():
        return hash_of(path)
    manifest = path / "manifest.json"
    named = manifest.read_text(encoding="utf-8", errors="replace") if manifest.exists() else ""
    files = (f for f in path.rglob("*") if f.is_file())
    files = (f for f in files if not is_ignored(f.relative_to(path)))
    # With its quotes, so that a file whose name is a part of another's is hashed.
    hashed = [f for f in sorted(files) if f'"{f.relative_to(path)}"' not in named]
    if hashed == [manifest]:
        return hash_of(manifest)
    return value_hash({str(f.relative_to(path)): hash_of(f) for f in hashed})


def is_ignored(path: Path) -> bool:
    return any(fnmatchcase(part, pattern) for part in path.parts for pattern in IGNORED)


def value_hash(value: Any) -> str:
    """SHA-256 of a JSON-serialisable value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Like `atomic_file`, for a folder; an existing folder of that name is replaced.

    Raises:
        UserError: the folder cannot be written.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _take_place(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_new(folder: Path) -> None:
    """Raise a `UserError` unless there is nothing at the path, or an empty folder."""
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is there already and no empty folder; give a new one")


def publish_folder(source: Path, target: Path) -> None:
    """Move a finished folder to `target`, replacing what is there. It is renamed, or copied if the
    target is on another file system; until the target is whole, the source stays.

    Raises:
        UserError: the target cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _take_place(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise cannot_write(target, error) from error
        with atomic_folder(target) as temporary:
            shutil.copytree(source, temporary, symlinks=True, dirs_exist_ok=True)
        remove(source)


def _take_place(finished: Path, path: Path) -> None:
    """Give a finished folder its final name, once its content is on the disk. The old one is moved
    aside until then, and comes back if the new one cannot take its place."""
    for folder, _, names in os.walk(finished):
        for name in (*names, "."):
            to_disk(Path(folder, name))
    old = temporary_beside(path)
    try:
        if os.path.lexists(path):
            os.replace(path, old)
        os.replace(finished, path)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.replace(old, path)
        raise
    to_disk(path.parent)
    remove(old)


def entries(folder: Path) -> list[Path]:
    """The sorted content of a folder; nothing if there is no folder.

    Raises:
        OSError: something else lies there, or the folder cannot be read.
    """
    return sorted(folder.iterdir()) if os.path.lexists(folder) else []


class NotYaml(ValueError):
    """A text is not valid YAML. The message says where, and what is wrong."""


@lru_cache(maxsize=4)  # a stage reads dvc.yaml and params.yaml again and again
def parse_yaml(text: str) -> Any:
    """Parse a YAML document. Callers share the value, so they must not change it.

    Raises:
        NotYaml: the text is not valid YAML, or names a key twice.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise NotYaml(f"{where}{error.problem or error.context}") from error
    # Of a value that its type refuses, such as a date in month 13 or a key that is a list.
    except Exception as error:
        raise NotYaml(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
