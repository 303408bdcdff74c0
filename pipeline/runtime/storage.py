"""The object store of `ray.storage_path`: a copy of the run directories that every node reaches.

Work is done in the run directory itself. What another machine has to find (a checkpoint, a finished
model or row) is uploaded when it is written, and downloaded where the run directory lacks it.
"""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError

# fsspec has arguments for what the tools of S3 find in the environment.
S3_ENVIRONMENT = {
    "key": "AWS_ACCESS_KEY_ID",
    "secret": "AWS_SECRET_ACCESS_KEY",
    "token": "AWS_SESSION_TOKEN",
    "endpoint_url": "AWS_ENDPOINT_URL",
}
TRAIN = "ray-train"  # the folder of Ray Train's own checkpoints in the store


@dataclass(frozen=True)
class Storage:
    """The store, as the driver and its workers use it.

    Args:
        url: `ray.storage_path`, such as s3://bucket/folder.
        runs: the folder of all run directories.
        options: keys and endpoint, as fsspec takes them; the machine's own where they are empty.
    """

    url: str
    runs: Path
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    @property
    def files(self) -> Any:
        """The fsspec file system of the store, which it opens once a process."""
        import fsspec

        protocol = self.url.partition("://")[0]
        try:
            return fsspec.filesystem(protocol, use_listings_cache=False, **self.options)
        except (ImportError, ValueError) as error:  # no package for it, no such protocol
            raise self.error(error) from error

    @property
    def folder(self) -> str:
        """The address without its protocol."""
        return self.url.partition("://")[2].rstrip("/")

    def error(self, error: Exception) -> UserError:
        return UserError(
            "ray.storage_path",
            f"{self.url}: {error or type(error).__name__}",
            "check its bucket, keys, region and endpoint (docs/cluster.md), or give a folder",
        )

    def place(self, path: Path) -> str:
        """Where the copy of a file or folder in a run directory lies."""
        return f"{self.folder}/{path.relative_to(self.runs).as_posix()}"

    def upload(self, path: Path) -> None:
        """Copy a file. Where the store does not answer a line says so, and work goes on."""
        try:
            self.files.put_file(str(path), self.place(path))
        except Exception as error:  # each kind of store has errors of its own
            print(f"{path.name} has no copy: {self.error(error)}", flush=True)

    def download(self, folder: Path) -> None:
        """Fetch every file of a folder that is not there.

        Raises:
            UserError: the store does not answer.
        """
        try:
            for place in self.files.find(self.place(folder)):
                path = self.runs / place.removeprefix(f"{self.folder}/")
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
                    self.files.get_file(place, str(aside))
                    os.replace(aside, path)
        except UserError:
            raise
        except Exception as error:
            raise self.error(error) from error


_storage: Storage | None = None


def open_storage(storage_path: str, runs: Path) -> None:
    """Let this process, a stage, keep copies at `ray.storage_path`, if that is a URL."""
    options = {}
    if storage_path.startswith("s3://"):
        options = {name: os.environ.get(key) for name, key in S3_ENVIRONMENT.items()}
        options = {name: value for name, value in options.items() if value}
    use_storage(Storage(storage_path, runs, options) if "://" in storage_path else None)


def use_storage(storage: Storage | None) -> None:
    """Let this process, a worker, use the store of its driver."""
    global _storage
    _storage = storage


def storage() -> Storage | None:
    """The store that this process uses; None where `ray.storage_path` is a folder."""
    return _storage


def upload(path: Path) -> None:
    """Copy a finished file of a run directory to the store, if there is one."""
    if _storage is not None:
        _storage.upload(path)


def download(*folders: Path) -> None:
    """Fetch what the store, if there is one, has of run directories and this machine lacks."""
    if _storage is not None:
        for folder in folders:
            _storage.download(folder)
