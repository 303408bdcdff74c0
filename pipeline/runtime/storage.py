"""Copies files of run directories to and from the object store at `ray.storage_path`.

Every file is written to a local run directory. Files that other machines need (checkpoints,
finished models, rows of results) are also uploaded; a machine downloads the files that it lacks.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import temporary_beside
from pipeline.runtime.secrets import redacted

# Arguments of s3fs, each with the environment variable that S3's tools read.
S3_ENVIRONMENT = {
    "key": "AWS_ACCESS_KEY_ID",
    "secret": "AWS_SECRET_ACCESS_KEY",
    "token": "AWS_SESSION_TOKEN",
    "endpoint_url": "AWS_ENDPOINT_URL",
}


@dataclass(frozen=True)
class Storage:
    """The object store at `ray.storage_path`; the driver sends this object to its workers."""

    files: Any  # the fsspec file system, with credentials that its repr does not show
    folder: str  # path in the store, such as bucket/folder
    runs: Path  # the folder of all run directories

    def place(self, path: Path) -> str:
        """The path in the object store where a local file or folder has its copy."""
        return f"{self.folder}/{path.relative_to(self.runs).as_posix()}"


_storage: Storage | None = None


def storage() -> Storage | None:
    """The object store that this process uses; None if `ray.storage_path` is a folder."""
    return _storage


def use_storage(storage: Storage | None) -> None:
    """Set the object store that this process uses; None for no store."""
    global _storage
    _storage = storage


def open_storage(storage_path: str, runs: Path) -> None:
    """Use the object store at `storage_path`, or no store if `storage_path` is a folder. Raises a
    `UserError` if fsspec cannot open the store."""
    use_storage(None)
    if "://" in storage_path:
        names = S3_ENVIRONMENT if storage_path.startswith("s3://") else {}
        options = {k: os.environ[name] for k, name in names.items() if os.environ.get(name)}
        try:
            files, folder = url_to_fs(storage_path, use_listings_cache=False, **options)
        except (ImportError, ValueError) as error:
            raise _error(error) from error
        use_storage(Storage(files, folder, runs))


def _error(error: Exception) -> UserError:
    way_out = "check the bucket, keys, region and endpoint (docs/cluster.md), or give a folder"
    return UserError("ray.storage_path", redacted(str(error)) or type(error).__name__, way_out)


def upload(path: Path) -> None:
    """Copy a file to the object store, if this process uses one. Errors are only printed."""
    if _storage is not None:
        try:
            _storage.files.put_file(str(path), _storage.place(path))
        except Exception as error:  # each kind of store has errors of its own
            print(f"{path.name} was not sent to the object store: {_error(error)}", flush=True)


def download(*folders: Path) -> None:
    """If this process uses an object store, download the folders' files that this machine lacks.
    Raises a `UserError` if the store does not answer."""
    if (store := _storage) is None:
        return
    try:
        for copy in [copy for own in folders for copy in store.files.find(store.place(own))]:
            path = store.runs / copy.removeprefix(f"{store.folder}/")
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = temporary_beside(path)
                store.files.get_file(copy, str(temporary))
                os.replace(temporary, path)
    except Exception as error:  # each kind of store has errors of its own
        raise _error(error) from error
