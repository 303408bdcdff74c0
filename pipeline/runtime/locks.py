"""Lock files, which a process holds as long as it works with what lies beside them."""

import os
import stat
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.runtime.errors import UserError

PATIENT = 10.0  # seconds that a process waits for another's lock without a word


def waited_for(path: Path) -> AbstractContextManager[object]:
    """The lock file of that name, locked until the block ends; a line says so where another process
    keeps it for long.

    Raises:
        UserError: as `lock_at`.
        OSError: it cannot be locked.
    """
    lock = lock_at(path)
    try:
        return lock.acquire(timeout=PATIENT)
    except Timeout:
        print(f"waiting for {path}, which another process holds", file=sys.stderr, flush=True)
        return lock.acquire()


def lock_at(path: Path) -> FileLock:
    """The lock file of that name, which need not exist yet.

    Raises:
        UserError: something else lies there. Behind a link it would be a file of somebody's own,
            which some versions of the library even empty.
    """
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # there is none, or whoever takes the lock says why not
        return FileLock(path)
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is a link, folder, pipe or device and no lock file; delete it")
    return FileLock(path)
