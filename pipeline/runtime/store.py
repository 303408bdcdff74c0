"""Copies of run directories in an object store, so that a machine that is lost costs minutes.

`ray.storage_path` may be the address of one, such as `s3://bucket/folder`. Stages then work in
`runs`, as they do without one, since locks, renames and mapped files need a file system. What
changes there is copied to the store while they work (`courier`), and a run directory that this
machine lacks is brought from it.

A store keeps the old object until the new one is whole: those of S3 and Google do.
"""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.files import atomic_file, read_json, remove, temporary_folder, write_json
from pipeline.runtime.patience import unless_late

PATIENCE = 60.0  # seconds in which nothing arrives, until a store is given up
REQUEST = 10.0  # seconds in which nothing of one request arrives; it is repeated
ATTEMPTS = 2  # of each request
REASON = 300  # characters of what a library says of it
CHUNK = 2**20  # bytes that are moved at a time
SENT = "sent.json"  # in a run directory: what the store has of it
BY = "copied_by"  # in the store: who has copied a run directory last
NOT_COPIED = {".lock", ".owner.json", "key.json", SENT, BY}  # of this machine alone
TUNE = "tune"  # Ray Tune's notes, which are not read again

Stamp = list[int]  # when a file changed, in nanoseconds since 1970, and its size in bytes


class Away(Exception):
    """The store does not answer, or refuses."""


class Missing(Away):
    """It has no such object."""


class Store:
    """A folder in an object store, which has a folder for each run directory."""

    def __init__(self, address: str):
        self.address = address
        self.moved = time.monotonic()  # when something arrived last

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system, and the folder in it. Nothing in it waits long: the process that ends
        waits for the request that is under way."""
        from pyarrow import fs

        url = urlsplit(self.address)
        user, _, bucket = url.netloc.rpartition("@")
        root = f"{bucket}{unquote(url.path).rstrip('/')}"
        options: dict[str, Any] = dict(parse_qsl(url.query))
        if url.scheme == "s3":
            if not options.keys() & {"region", "endpoint_override"}:
                options["region"] = fs.resolve_s3_region(bucket)
            retries = fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)
            times = {"connect_timeout": REQUEST, "request_timeout": REQUEST}
            # Parts that are sent in the background would all wait in memory.
            system = fs.S3FileSystem(
                retry_strategy=retries, background_writes=False, **times, **options
            )
            return system, root
        limit = timedelta(seconds=ATTEMPTS * REQUEST)
        anonymous = user == "anonymous"
        return fs.GcsFileSystem(anonymous=anonymous, retry_time_limit=limit, **options), root

    def listed(self, name: str) -> list[str]:
        """The files of a run directory, by their paths in it, the oldest first.

        Raises:
            Away: it cannot be told.
        """
        with _named():
            from pyarrow.fs import FileSelector, FileType

            system, root = self._opened
            base = f"{root}/{name}/"
            found = system.get_file_info(FileSelector(base, allow_not_found=True, recursive=True))
        self.moved = time.monotonic()
        files = [info for info in found if info.type == FileType.File]
        paths = [i.path.removeprefix(base) for i in sorted(files, key=lambda i: i.mtime_ns or 0)]
        return [path for path in paths if _is_ours(path, set(paths))]

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file from the store.

        Raises:
            Away: it cannot be read.
            UserError: it cannot be written.
        """
        with _named():
            system, root = self._opened
            source = system.open_input_stream(f"{root}/{name}")
        with source, atomic_file(path) as temporary, open(temporary, "wb") as target:
            for chunk in self._chunks(source):
                target.write(chunk)

    def put(self, source: BinaryIO, name: str) -> None:
        """Copy an open file to the store. It is read once before: one that cannot be read to its
        end would replace a whole copy by what was read of it.

        Raises:
            Away: it cannot be written.
            OSError: it cannot be read.
        """
        while source.read(CHUNK):
            pass
        source.seek(0)
        with _named():
            system, root = self._opened
            with system.open_output_stream(f"{root}/{name}") as target:
                for chunk in self._chunks(source):
                    target.write(chunk)

    def remove(self, name: str) -> None:
        """Remove a file from the store, where it may be gone already.

        Raises:
            Away: it cannot be removed.
        """
        with suppress(Missing), _named():
            system, root = self._opened
            system.delete_file(f"{root}/{name}")

    def copied_by(self, name: str) -> str:
        """Who has copied a run directory last, by `Sent.by`; empty where nobody has.

        Raises:
            Away: it cannot be told.
        """
        with suppress(Missing), _named():
            system, root = self._opened
            with system.open_input_stream(f"{root}/{name}/{BY}") as source:
                return source.read(CHUNK).decode(errors="replace")
        return ""

    def require_bucket(self) -> None:
        """Look whether the bucket is there, before any work that could not be copied to it.

        Raises:
            Away: it is not, or may not be looked at.
        """
        with _named():
            from pyarrow.fs import FileType

            system, root = self._opened
            bucket = root.partition("/")[0]
            if system.get_file_info(bucket).type != FileType.Directory:
                raise Away(f"there is no bucket {bucket}")

    def _chunks(self, source: Any) -> Iterator[bytes]:
        while chunk := _read(source):
            self.moved = time.monotonic()
            yield chunk


def _read(source: Any) -> bytes:
    with _named():
        return source.read(CHUNK)


@contextmanager
def _named() -> Iterator[None]:
    """Whatever goes wrong in the block is the store's."""
    try:
        yield
    except Away:
        raise
    except FileNotFoundError as error:
        raise Missing(one_line(str(error))[:REASON]) from error
    except Exception as error:  # Arrow has many names for it
        raise Away(one_line(str(error))[:REASON]) from error


def is_copied(path: PurePosixPath) -> bool:
    """Whether a file of a run directory, by its path there, belongs to the copy: what is being
    written does not, nor what is of this machine alone, nor a path that leads elsewhere."""
    parts = path.parts
    if not parts or path.is_absolute() or ".." in parts or TUNE in parts:
        return False
    return not NOT_COPIED & set(parts) and not any(part.endswith(".tmp") for part in parts)


def _is_ours(path: str, others: set[str]) -> bool:
    """Whether an object may be a file's copy: a name of a file system, and no folder's."""
    plain = PurePosixPath(path)
    return str(plain) == path and is_copied(plain) and not others & set(map(str, plain.parents))


@lru_cache
def _store(address: str) -> Store:
    return Store(address)


def bring(address: str, name: str, folder: Path) -> None:
    """Copy a run directory from the store, if that has one: all of it, or nothing. Of one that is
    here already nothing is copied.

    Raises:
        UserError: the store does not answer, or refuses; the disk is full; or the store has what
            another machine has made since of one that is here.
    """
    store = _store(address)
    store.moved = time.monotonic()
    here = (folder / "key.json").exists()
    try:
        count = unless_late(
            lambda: _check(store, name, folder) if here else _fetch_all(store, name, folder),
            lambda: time.monotonic() - store.moved > PATIENCE,
        )
    except (Away, TimeoutError) as error:
        reason = str(error) or f"nothing arrived for {PATIENCE:g} s"
        raise UserError(
            f"ray.storage_path: {address} cannot be used ({reason}); see that the bucket is there "
            f"and its keys are set (docs/cluster.md), or set a folder such as runs, and run again"
        ) from error
    if count:
        print(f"{folder}: {count} files brought from {address}", flush=True)


def _check(store: Store, name: str, folder: Path) -> int:
    sent = Sent.noted(folder, store.address)
    if store.copied_by(name) not in ("", sent.by, sent.taken):
        raise UserError(
            f"{folder}: another machine has gone on with this run, and {store.address} has its "
            f"state; delete the folder here to go on from that, or {name} there to keep this one"
        )
    return 0


def _fetch_all(store: Store, name: str, folder: Path) -> int:
    paths = store.listed(name)
    if not paths:
        store.require_bucket()
        return 0
    with temporary_folder(folder / "brought") as aside:
        for path in paths:
            with suppress(Missing):  # it was removed meanwhile, or has a name that no file has
                store.fetch(f"{name}/{path}", aside / path)
        for each in aside.iterdir():
            remove(folder / each.name)
            os.replace(each, folder / each.name)
    there = [path for path in paths if (folder / path).is_file()]
    files = {path: stamp(os.stat(folder / path)) for path in there}
    Sent(folder, store.address, files, taken=store.copied_by(name)).note()
    return len(there)


def stamp(status: os.stat_result) -> Stamp:
    return [status.st_mtime_ns, status.st_size]


@dataclass
class Sent:
    """What a store has of a run directory, by paths in it, as this machine knows.

    Args:
        by: the name of this copy of the run directory, which is a word.
        taken: that of the one which it was brought from.
    """

    folder: Path
    address: str
    files: dict[str, Stamp] = field(default_factory=dict)
    by: str = field(default_factory=lambda: uuid.uuid4().hex)
    taken: str = ""

    @classmethod
    def noted(cls, folder: Path, address: str) -> "Sent":
        """As it was noted last; as if nothing was sent where the note is damaged."""
        try:
            noted = read_json(folder / SENT, "address", "files", "by", "taken")
        except UserError:  # most often there is none yet
            return cls(folder, address)
        if noted["address"] != address or not isinstance(noted["files"], dict):
            return cls(folder, address)
        return cls(folder, address, noted["files"], str(noted["by"]), str(noted["taken"]))

    def note(self) -> None:
        noted = {name: getattr(self, name) for name in ("address", "files", "by", "taken")}
        write_json(self.folder / SENT, noted, durable=False)
