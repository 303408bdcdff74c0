"""Hashes of large files, which are not read again."""

from functools import lru_cache
from pathlib import Path

from pipeline.runtime.files import file_hash


def hash_now(path: Path) -> str:
    """The hash of a file, read once a process as long as its size and time stay."""
    found = path.stat()
    return _hash(path.absolute(), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=10_000)
def _hash(path: Path, size: int, modified: int) -> str:
    return file_hash(path)
