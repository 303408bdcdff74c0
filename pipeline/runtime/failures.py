"""How an error gets out of a Ray worker: as one line, in a file in the job's folder (Ray would wrap
the error and log it at length). And how one of ours, a bug, gets out of a stage or a command.
"""

import contextlib
import errno
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.dag import DVC_FILE
from pipeline.runtime.errors import FULL, PassingError, UserError, one_line
from pipeline.runtime.files import look_again, read_file, remove, write_text
from pipeline.runtime.limits import JSON_BYTES
from pipeline.runtime.project import in_project
from pipeline.runtime.secrets import redacted

# What a user can do where the system refuses a file or folder, by its number of the error.
WAYS_OUT = {
    errno.EACCES: "change its permissions",
    errno.EPERM: "change its permissions",
    errno.EROFS: "make its file system writable",
    errno.ENOTDIR: "a file lies in the place of a folder: delete it",
    errno.EISDIR: "a folder lies in the place of a file: delete it",
    errno.ELOOP: "a link leads to itself: delete it",
}

PASSING = {  # reasons why the system does not read a file now, and may later
    *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EBUSY),
    *(errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN),
}


@dataclass(frozen=True)
class Failure:
    """The files in which a job that fails leaves its error.

    Args:
        folder: the job's folder, absolute; its files are on the driver's node when the worker ends.
    """

    folder: str

    @property
    def _line(self) -> Path:
        return Path(self.folder) / "error.txt"

    @property
    def _traceback(self) -> Path:
        return Path(self.folder) / "traceback.txt"

    def clear(self) -> None:
        """Forget the error of an earlier attempt."""
        remove(self._line)
        remove(self._traceback)

    def again(self) -> None:
        """Forget what the attempt before died of; another begins."""
        remove(self._traceback)

    def read(self) -> str | None:
        """The error for the user, if the job left one: what no other attempt can mend."""
        look_again(Path(self.folder))
        return _text_of(self._line)

    def reason(self, lost: str) -> str:
        """Why the job failed, in a line: its error for the user, else the one that it died of, with
        the file that has its traceback.

        Args:
            lost: what to say where it left neither, as a worker that was killed.
        """
        if (line := self.read()) is not None:
            return line
        if not (text := _text_of(self._traceback)):
            return lost
        return f"{text.splitlines()[0]} (traceback in {self._traceback})"

    @contextmanager
    def noted(
        self, pass_on: Callable[[UserError], bool] = lambda error: False, shared: bool = False
    ) -> Iterator[None]:
        """Write an error of the block to its file.

        Args:
            pass_on: decides whether a `UserError` is raised as well, so that Ray ends the workers
                that wait for this one. Any other error always is, and one that may pass: Ray may
                try again.
            shared: among the workers of a job, whose first error counts: that of another is often
                only that it has lost this one.
        """
        try:
            yield
        except Exception as error:
            if not isinstance(error, UserError) or isinstance(error, PassingError):
                with contextlib.suppress(UserError):
                    if not (shared and self._traceback.exists()):
                        text = f"{in_a_line(error)}\n\n{traceback.format_exc()}"
                        write_text(self._traceback, text)
                raise
            try:
                write_text(self._line, str(error))
            except UserError:  # a full disk has no room for the line either: Ray passes it on
                raise error from None
            if pass_on(error):
                raise


def _text_of(file: Path) -> str | None:
    """What a worker has left in a file; None where there is nothing that could be read."""
    try:
        return read_file(file, JSON_BYTES).decode("utf-8", "replace")
    except (FileNotFoundError, UserError):
        return None


def bug(error: Exception, name: str) -> str:
    """The line for an error that no user's mistake explains; its traceback goes into a file, unless
    the disk is full. In a job, whose files nobody can look at, it is printed too.

    Args:
        name: of the stage or command.

    Raises:
        Exception: the error itself, where no file can be written, or a reader has left.
    """
    if isinstance(error, BrokenPipeError):
        raise error
    inner = innermost(error)
    if isinstance(inner, OSError) and inner.errno in FULL:
        return f"{inner.strerror}{f': {inner.filename}' * bool(inner.filename)}; make room"
    if isinstance(inner, OSError) and inner.errno in (errno.EMFILE, errno.ENFILE):
        return f"{inner.strerror}; allow more of them (`ulimit -n`)"
    if isinstance(inner, OSError) and inner.errno in WAYS_OUT and inner.filename:
        said = f"{inner.filename}: {inner.strerror}; {WAYS_OUT[inner.errno]} and run again"
        return one_line(redacted(said))
    if lacks_memory(inner):
        return in_a_line(inner)
    text = redacted("".join(traceback.format_exception(error)))
    if "MASKGIT_COMMIT" in os.environ:  # a job was sent from another folder (`tools/submit`)
        print(text, file=sys.stderr)
    for file in _places(f"traceback-{name}.txt"):
        with contextlib.suppress(UserError, OSError):
            write_text(file, text.encode("utf-8", "backslashreplace").decode())
            return f"{one_line(redacted(in_a_line(error)))} (unexpected: traceback in {file})"
    raise error


def _places(name: str) -> Iterator[Path]:
    """Where such a file may lie: with the project's runs, or where the system keeps what it will
    delete."""
    if in_project(DVC_FILE).exists() and in_project("runs").is_dir():
        yield in_project("runs") / name
    with contextlib.suppress(OSError):
        yield Path(tempfile.gettempdir(), name)


def innermost(error: BaseException) -> BaseException:
    """The error inside of Ray's, which wrap it several times."""
    inside = list(getattr(error, "worker_failures", {}).values())
    inside += [getattr(error, name, None) for name in ("controller_failure", "cause", "_base_exc")]
    for cause in inside:
        if isinstance(cause, BaseException):
            return innermost(cause)
    return error


def lacks_memory(error: BaseException) -> bool:
    """Whether memory was asked for that there is not: Python's, NumPy's or PyTorch's, or the
    system's for a file that is to be mapped."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    mapped = isinstance(error, RuntimeError | OSError) or type(error).__name__ == "SafetensorError"
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, RuntimeError) and any(word in str(error) for word in words))
        or (mapped and os.strerror(errno.ENOMEM) in str(error))
    )


def require_readable(path: Path, error: BaseException, instead: str = "") -> None:
    """Look at why a file, or one in a folder, could not be read.

    Args:
        instead: the other way out, as words that follow "run again,".

    Raises:
        PassingError: it may be read at another time: nothing says that it is damaged, and nobody
            may remove it.
        UserError: its permissions do not allow it.
    """
    if isinstance(error.__cause__, OSError):
        error = error.__cause__
    if isinstance(error, OSError) and error.errno in PASSING:
        reason = error.strerror
        if not instead and error.errno in WAYS_OUT:  # nothing is removed, and time mends nothing
            raise UserError(f"{path} cannot be read ({reason}); {WAYS_OUT[error.errno]}") from error
    elif lacks_memory(error):
        reason = "there is not enough memory"
    else:
        return
    way_out = f"run again, {instead}" if instead else "run again"
    raise PassingError(f"{path} cannot be read now ({reason}); {way_out}") from error


def in_a_line(error: BaseException) -> str:
    """The first line of the error inside; with its type, unless it is for the user."""
    inner = innermost(error)
    line, name = str(inner).strip().partition("\n")[0], type(inner).__name__
    if isinstance(inner, UserError):
        return line
    if lacks_memory(inner):
        found = re.search(r"allocate ([\d.]+ \w+)", line)
        wanted = f" for {found[1]} at once" if found else ""
        return (
            f"there is not enough memory{wanted}; ask for less (a smaller batch_size or network in "
            f"params.yaml), or use a larger machine"
        )
    return f"{name}: {line}" if line else name
