"""Writes that are whole or do not happen, content hashes, and small file formats."""

import contextlib
import copy
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the final name only if the block succeeds.

    Raises:
        UserError: the file cannot be written (disk full, read-only folder).
    """
    path = Path(path)
    temporary = _aside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(_cannot_write(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Like `atomic_file`, for a folder; an existing folder of that name is replaced.

    Raises:
        UserError: the folder cannot be written.
    """
    path = Path(path)
    temporary = _aside(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(_cannot_write(path, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish_folder(source: Path, target: Path) -> None:
    """Move a finished folder to `target`, replacing what is there. It is renamed, or copied if the
    target is on another file system.

    Raises:
        UserError: the target cannot be written.
    """
    with atomic_folder(target) as temporary:
        temporary.rmdir()
        shutil.move(source, temporary)


def _cannot_write(path: Path, error: OSError) -> str:
    return (
        f"cannot write {path}: {error.strerror or error}; make room or change permissions and run "
        f"again, nothing made so far is lost"
    )


def write_text(path: Path | str, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run `dvc repro` to make it") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and run again") from error


def read_yaml(path: Path) -> dict:
    """Read a YAML 1.2 file, as DVC does (so that 1e-4 is a number).

    Raises:
        UserError: it is missing, not YAML, or not a mapping.
    """
    from ruamel.yaml import YAMLError

    try:
        values = copy.deepcopy(_parse(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run from the project's root folder") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold sections of key: value pairs")
    return values


@lru_cache(maxsize=4)  # a stage looks into dvc.yaml and params.yaml again and again
def _parse(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(text)


def write_csv(path: Path | str, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV; floats keep 10 significant digits, enough to tell runs apart."""
    import pandas as pd

    with atomic_file(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.10g")


def write_npz(path: Path | str, arrays: Mapping[str, Any]) -> None:
    """Write NumPy arrays as a compressed `.npz`."""
    import numpy as np

    with atomic_file(path) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, **arrays)


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def tree_hash(path: Path | str) -> str:
    """Content hash of a file, or of a folder: of every file in it, but for those whose own content
    hashes stand in its `manifest.json`.

    Raises:
        UserError: there is nothing at the path.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} is missing; run `dvc repro` to make it")
    if path.is_file():
        return file_hash(path)
    manifest = path / "manifest.json"
    named = manifest.read_text(encoding="utf-8") if manifest.exists() else ""
    files = (f for f in path.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    # In quotes, as the manifest names a file: not as a part of another's name.
    hashed = [f for f in sorted(files) if f'"{f.relative_to(path)}"' not in named]
    if hashed == [manifest]:
        return file_hash(manifest)
    return value_hash({str(f.relative_to(path)): file_hash(f) for f in hashed})


def value_hash(value: Any) -> str:
    """SHA-256 of a JSON-serialisable value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
