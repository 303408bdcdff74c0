"""Copies of checkpoints in an object store, so that a machine that is lost takes no training along.

An object's name says what it is a copy of: `<file>@<time>-<size>-<sha256>`. What an upload left cut
short is therefore no copy, nor is what has changed since; and since a run directory is named by all
that its content depends on, whoever wrote a copy trained the same.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import atomic_file, file_hash, remove
from pipeline.runtime.secrets import redacted

CHECKPOINT = "checkpoint.pt"  # the newest of a training; under Ray Train in a folder for each
BEFORE = "checkpoint.before.pt"  # the one before, where they have no folders of their own
LISTING = "checkpoint_manager_snapshot.json"  # Ray's, of the checkpoints that it knows
SECOND = 10**9  # nanoseconds: no file system's times are coarser
CHUNK = 2**23  # bytes that are read and written at once
PATIENCE = timedelta(seconds=15)  # with Google's store, which has a quarter of an hour by default
_COPY = re.compile(
    r"(?P<path>[^\0]+)@(?P<changed>\d{1,19})-(?P<size>\d{1,18})-(?P<hash>[0-9a-f]{64})", re.DOTALL
)


class StoreError(UserError):
    """A store does not answer, or not as it should."""


@dataclass(frozen=True, order=True)
class Copy:
    """A checkpoint, as it was at some time, in the store; the newest is the largest."""

    changed: int  # when the file was, by its own time: nanoseconds since 1970
    size: int  # bytes
    hash: str  # SHA-256, as hex
    path: str  # of the file, below the folder of all run directories

    @property
    def name(self) -> str:
        return f"{self.path}@{self.changed}-{self.size}-{self.hash}"


def training_of(path: str) -> str:
    """The folder of the training that a checkpoint is one of."""
    folder = PurePosixPath(path).parent
    of_ray = folder.name.startswith("checkpoint_")
    return (folder.parent if of_ray else folder).as_posix()


class Store:
    """Copies of checkpoints at an address.

    Args:
        address: `s3://bucket/folder` or `gs://bucket/folder`. Keys, region and endpoint are found
            as the store's own tools find them: in the environment, files in the home, the machine.
    """

    def __init__(self, address: str):
        self.address = address.rstrip("/")
        self._root = self.address.partition("://")[2]
        self._copies: dict[str, dict[str, list[Copy]]] = {}  # by stage and training

    def copies(self, folder: str) -> dict[str, list[Copy]]:
        """The whole copies of the checkpoints in a run directory, by training, the newest first.

        Args:
            folder: `<stage>/<key>`. All of a stage are listed at once, by the first who asks.

        Raises:
            StoreError: the store does not answer.
        """
        stage = str(PurePosixPath(folder).parent)
        if stage not in self._copies:
            self._copies[stage] = self._listed(stage)
        every = self._copies[stage].items()
        return {t: copies for t, copies in every if f"{t}/".startswith(f"{folder}/")}

    def _listed(self, stage: str) -> dict[str, list[Copy]]:
        from pyarrow.fs import FileSelector, FileType

        where = f"{self._root}/{stage}"
        with self._asked("cannot be read"):
            selector = FileSelector(where, recursive=True, allow_not_found=True)
            infos, bucket = self._files.get_file_info(selector), self._root.split("/")[0]
            if not infos and self._files.get_file_info(bucket).type == FileType.NotFound:
                raise FileNotFoundError(f"there is no bucket {bucket}")
        found = defaultdict[str, list[Copy]](list)
        for info in infos:
            if info.type == FileType.File and (copy := self._copy(info)):
                found[training_of(copy.path)].append(copy)
        return {training: sorted(copies, reverse=True) for training, copies in found.items()}

    def _copy(self, info: Any) -> Copy | None:
        """The copy that an object is; None where it is none, or was cut short."""
        match = _COPY.fullmatch(info.path.removeprefix(f"{self._root}/"))
        if match is None or info.size != int(match["size"]):
            return None
        *folders, name = match["path"].split("/")
        if name != CHECKPOINT or any(not part or part.startswith(".") for part in folders):
            return None  # `..` leads elsewhere
        return Copy(int(match["changed"]), info.size, match["hash"], match["path"])

    def put(self, file: Path, path: str) -> Copy:
        """Copy a checkpoint, as it is now, into the store.

        Raises:
            StoreError: the store took no copy.
            OSError: the file cannot be read.
        """
        with open(file, "rb") as content:
            found = os.fstat(content.fileno())
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            copy = Copy(found.st_mtime_ns, found.st_size, digest, path)
            content.seek(0)
            # Closed in any case, which makes an object of what is there: it is no copy then.
            with self._asked("took no copy"):
                out = self._files.open_output_stream(self._place(copy))
            with self._asked("took no copy"), out:
                while chunk := content.read(CHUNK):
                    out.write(chunk)
        return copy

    def fetch(self, copy: Copy, file: Path, ready: Callable[[], None] = lambda: None) -> bool:
        """Write a copy to a file, which gets its time; False, and nothing is written, where it is
        gone, or has changed.

        Args:
            ready: called once it is whole, before it takes its place.

        Raises:
            StoreError: the store does not answer.
            UserError: the file cannot be written.
        """
        with atomic_file(file) as temporary:
            with open(temporary, "wb") as target:
                if self._read(copy, target) != copy.hash:
                    return False
            os.utime(temporary, ns=(copy.changed, copy.changed))
            ready()
        return True

    def _read(self, copy: Copy, target: IO[bytes]) -> str | None:
        digest = hashlib.sha256()
        try:
            with self._asked("cannot be read"):
                source = self._files.open_input_stream(self._place(copy))
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        with source:
            while chunk := self._chunk(source):
                digest.update(chunk)
                target.write(chunk)
        return digest.hexdigest()

    def _chunk(self, source: Any) -> bytes:
        with self._asked("cannot be read"):
            return source.read(CHUNK)

    def remove(self, copy: Copy) -> None:
        """Remove a copy, which may be gone already.

        Raises:
            StoreError: the store does not answer.
        """
        with self._asked("let no copy be removed"):
            try:
                self._files.delete_file(self._place(copy))
            except FileNotFoundError:
                return

    def _place(self, copy: Copy) -> str:
        return f"{self._root}/{copy.name}"

    @cached_property
    def _files(self) -> Any:
        """pyarrow's file system, which is imported and opened when it is first needed."""
        return _file_system(self.address)

    @contextmanager
    def _asked(self, failed: str) -> Iterator[None]:
        """What pyarrow raises is a line that names the store."""
        from pyarrow import ArrowException

        try:
            yield
        except (OSError, ValueError, ArrowException) as error:
            raise StoreError(
                f"ray.storage_path: {self.address} {failed} ({redacted(str(error))}); look at its "
                f"bucket, keys, region and endpoint (docs/cluster.md), or give a folder"
            ) from error


def bring(store: Store, folder: str, target: Path) -> None:
    """Let a run directory have the newest checkpoint of each of its trainings, whole.

    Args:
        folder: `<stage>/<key>` in the store.
        target: the run directory, which is this process's.

    Raises:
        UserError: the store does not answer, or a file cannot be written.
    """
    own = newest_checkpoints(target, folder)
    for training, copies in store.copies(folder).items():
        here = target / PurePosixPath(training).relative_to(folder)
        changed, newest = own.get(training, (0, here))
        before = here / BEFORE
        passed = before.stat().st_mtime_ns if before.exists() else 0
        for copy in copies:
            if copy.changed < changed or copy.changed <= passed:
                break
            if copy.changed == changed and file_hash(newest) == copy.hash:
                if newest.parent != here and not (here / LISTING).exists():  # killed just then
                    _be_the_only_one(newest.parent)
                break
            size = f"{copy.size / 1e6:,.1f} MB"
            print(f"{training}: its checkpoint comes from {store.address}, {size}", flush=True)
            file = target / PurePosixPath(copy.path).relative_to(folder)
            # A kill must not leave Ray a list that lacks it.
            if store.fetch(copy, file, partial((here / LISTING).unlink, missing_ok=True)):
                if file.parent != here:
                    _be_the_only_one(file.parent)
                break
            print(f"{store.address}/{copy.name} is gone or damaged", flush=True)


def _be_the_only_one(folder: Path) -> None:
    """Remove what Ray would go on from in place of a checkpoint that has come: without its list it
    goes by names, which are local times."""
    for other in folder.parent.glob("checkpoint_*/"):
        if other != folder:
            remove(other)


def follow(file: Path, folder: Path) -> None:
    """Give a new checkpoint a later time than those have that a training's folder holds: a clock
    may be set back, or another machine's be ahead."""
    last = max((changed for changed, _ in checkpoints(folder)), default=0)
    if file.stat().st_mtime_ns <= last:
        os.utime(file, ns=(last + SECOND, last + SECOND))


def newest_checkpoints(run: Path, folder: str) -> dict[str, tuple[int, Path]]:
    """The newest checkpoint of each training in a run directory, with the time when it was written.

    Args:
        folder: `<stage>/<key>` in the store.
    """
    found = {}
    for changed, path in sorted(checkpoints(run)):
        found[training_of(f"{folder}/{path.relative_to(run).as_posix()}")] = (changed, path)
    return found


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The whole checkpoints in a folder and below it, each with the time when it was written."""
    found = []
    for path in folder.rglob(CHECKPOINT):
        inside = path.relative_to(folder).parts
        if any(part.startswith(".") for part in inside) or path.is_symlink():
            continue  # half written
        try:
            found.append((path.stat().st_mtime_ns, path))
        except FileNotFoundError:  # it was removed meanwhile
            continue
    return found


@lru_cache(maxsize=1)
def store_at(address: str) -> Store:
    """The store at an address, the same for a whole process."""
    return Store(address)


def _file_system(address: str) -> Any:
    from pyarrow import fs

    if address.startswith("gs://"):
        return fs.GcsFileSystem(retry_time_limit=PATIENCE)
    given = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    endpoint = urlsplit(given)
    return fs.S3FileSystem(
        endpoint_override=f"{endpoint.netloc}{endpoint.path}".rstrip("/") or None,
        scheme=endpoint.scheme or None,
        background_writes=False,  # else a process that ends waits for all of them
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )
