"""Copies of run directories in an object store, so that a machine that is lost takes no work along.

An object's name holds the size and the hash of its content: `<folder>/<file>@<size>-<sha256>`. What
an upload left cut short is therefore no copy, nor is what has changed since; and since a run
directory is named by all that its content depends on, whoever wrote a copy wrote the same.
"""

import hashlib
import os
import re
import shutil
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import atomic_file

CHUNK = 2**23  # bytes that are read and written at once
_COPY = re.compile(r"(?P<path>[^\0]+)@(?P<size>\d{1,18})-(?P<hash>[0-9a-f]{64})", re.DOTALL)


class StoreError(UserError):
    """A store does not answer, or not as it should."""


@dataclass(frozen=True)
class Copy:
    """A file's content at some time, in the store."""

    path: str  # of the file, below the folder of all run directories
    size: int  # bytes
    hash: str  # SHA-256, as hex

    @property
    def name(self) -> str:
        return f"{self.path}@{self.size}-{self.hash}"


class Store:
    """Copies of files at an address.

    Args:
        address: `s3://bucket/folder` or `gs://bucket/folder`. Keys, region and endpoint are found
            as the store's own tools find them: in the environment, files in the home, the machine.
    """

    def __init__(self, address: str):
        self.address = address.rstrip("/")
        self._root = self.address.partition("://")[2]
        self._files: Any = None
        self._copies: dict[str, dict[str, list[Copy]]] = {}  # by stage and run directory

    def copies(self, folder: str) -> list[Copy]:
        """The whole copies of the files of a run directory, the oldest first.

        Args:
            folder: `<stage>/<key>`. All of a stage are listed at once, by the first who asks.

        Raises:
            StoreError: the store does not answer.
        """
        stage = str(PurePosixPath(folder).parent)
        if stage not in self._copies:
            self._copies[stage] = self._listed(stage)
        return self._copies[stage].get(folder, [])

    def _listed(self, stage: str) -> dict[str, list[Copy]]:
        from pyarrow.fs import FileSelector, FileType

        where = f"{self._root}/{stage}"
        bucket, selector = (
            where.split("/")[0],
            FileSelector(where, allow_not_found=True, recursive=True),
        )
        try:
            if self._opened().get_file_info(bucket).type == FileType.NotFound:
                raise FileNotFoundError(f"there is no bucket {bucket}")
            infos = self._opened().get_file_info(selector)
        except OSError as error:
            raise self._error("cannot be read", error) from error
        found = defaultdict[str, list[Copy]](list)
        for info in sorted(infos, key=lambda info: (info.mtime_ns or 0, info.path)):
            if info.type == FileType.File and (copy := self._copy(info)):
                run = PurePosixPath(copy.path).relative_to(stage).parts[0]
                found[f"{stage}/{run}"].append(copy)
        return dict(found)

    def _copy(self, info: Any) -> Copy | None:
        """The copy that an object is; None where it is none, or was cut short."""
        match = _COPY.fullmatch(info.path.removeprefix(f"{self._root}/"))
        if match is None or info.size != int(match["size"]):
            return None
        parts = match["path"].split("/")
        if any(not part or part.startswith(".") for part in parts):  # `..` leads elsewhere
            return None
        return Copy(match["path"], info.size, match["hash"])

    def put(self, file: Path, path: str) -> Copy:
        """Copy a file's content, as it is now, into the store.

        Raises:
            StoreError: it could not be.
            OSError: the file cannot be read.
        """
        with open(file, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            copy = Copy(path, content.tell(), digest)
            content.seek(0)
            try:
                # (A name that ends with .gz does not mean that it is to be compressed.)
                with self._opened().open_output_stream(self._place(copy), compression=None) as out:
                    shutil.copyfileobj(content, out, CHUNK)
            except OSError as error:
                raise self._error("took no copy", error) from error
        return copy

    def fetch(self, copy: Copy, file: Path) -> bool:
        """Write a copy's content to a file; False, and nothing is written, where it has changed.

        Raises:
            StoreError: the store does not answer.
            UserError: the file cannot be written.
        """
        with atomic_file(file, durable=False) as temporary:
            with open(temporary, "wb") as target:
                digest = self._read(copy, target)
            if digest != copy.hash:
                return False
        return True

    def _read(self, copy: Copy, target: IO[bytes]) -> str:
        digest = hashlib.sha256()
        try:
            source = self._opened().open_input_stream(self._place(copy), compression=None)
            with source:
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    target.write(chunk)
        except OSError as error:
            raise self._error("cannot be read", error) from error
        return digest.hexdigest()

    def remove(self, copy: Copy) -> None:
        """Remove a copy, which may be gone already.

        Raises:
            StoreError: the store does not answer.
        """
        try:
            self._opened().delete_file(self._place(copy))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error("let no copy be removed", error) from error

    def _place(self, copy: Copy) -> str:
        return f"{self._root}/{copy.name}"

    def _opened(self) -> Any:
        """pyarrow's file system, which is imported and opened when it is first needed."""
        if self._files is None:
            self._files = _file_system(self.address)
        return self._files

    def _error(self, what: str, error: OSError) -> StoreError:
        return StoreError(
            f"ray.storage_path: {self.address} {what} ({error}); look at its bucket, keys, region "
            f"and endpoint (docs/cluster.md), or give a folder"
        )


def bring(store: Store, folder: str, target: Path) -> int:
    """Let a run directory have what it lacks and the store has, the newest copy of each file.

    Args:
        folder: `<stage>/<key>` in the store.
        target: the run directory, which is this process's.

    Returns:
        The number of files that were brought.

    Raises:
        UserError: the store does not answer, or a file cannot be written.
    """
    count, by_path = 0, defaultdict[str, list[Copy]](list)
    for copy in store.copies(folder):
        by_path[copy.path].append(copy)
    for path, copies in by_path.items():
        file = target / PurePosixPath(path).relative_to(folder)
        if os.path.lexists(file):
            continue
        for copy in reversed(copies):
            if store.fetch(copy, file):
                count += 1
                break
            print(f"{store.address}/{copy.name} is damaged, and is left there", flush=True)
    return count


@lru_cache(maxsize=1)
def store_at(address: str) -> Store:
    """The store at an address, the same for a whole process."""
    return Store(address)


def _file_system(address: str) -> Any:
    from pyarrow import fs

    if address.startswith("gs://"):
        return fs.FileSystem.from_uri(address)[0]
    given = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    endpoint = urlsplit(given)
    return fs.S3FileSystem(
        endpoint_override=f"{endpoint.netloc}{endpoint.path}".rstrip("/") or None,
        scheme=endpoint.scheme or None,
        background_writes=False,  # else a process that ends waits for them
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )
