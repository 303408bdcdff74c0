"""Lock files, which a process holds as long as it works with what lies beside them."""

import os
import stat
from pathlib import Path

from filelock import FileLock

from pipeline.runtime.errors import UserError


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
