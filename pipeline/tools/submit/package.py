"""The package that Ray brings to the nodes of a job: the code, without what git ignores."""

import os
import subprocess
import zipfile
from collections.abc import Iterable
from pathlib import Path

from pipeline.runtime.errors import UserError
from pipeline.tools.submit.order import FILE

MOST = 100 * 2**20  # bytes that Ray's dashboard takes


def tracked_files() -> list[Path]:
    """The project's files, as git lists them: those that it holds or could hold.

    Raises:
        UserError: this is no repository.
    """
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            "git does not know this folder, and a job gets what git lists; `git init` makes it one"
        ) from error
    files = (Path(os.fsdecode(name)) for name in listed.split(b"\0") if name)
    return sorted({file for file in files if file.is_file()})  # some may be deleted


def write_package(path: Path, files: Iterable[Path], order: bytes) -> None:
    """Write files and the order as a zip file.

    Raises:
        UserError: it is larger than Ray takes, or a file cannot be read.
    """
    sizes: dict[Path, int] = {}
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as package:
            package.writestr(FILE, order)
            for file in files:
                package.write(file)
                sizes[file] = package.getinfo(file.as_posix()).compress_size
    except OSError as error:
        raise UserError(f"cannot pack {error.filename}: {error.strerror or error}") from error
    if (size := path.stat().st_size) > MOST:
        largest = max(sizes, key=lambda file: sizes[file])
        raise UserError(
            f"the code is {size / 2**20:.0f} MiB packed, {sizes[largest] / 2**20:.0f} of them "
            f"{largest}, and Ray takes {MOST / 2**20:.0f}; let .gitignore name what is no code"
        )
