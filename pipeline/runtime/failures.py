"""Errors as one line: of a job, in a file in its folder (Ray would wrap the error and log it at
length), and at the end of a stage or command."""

import contextlib
import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.errors import SYSTEM, WAYS_OUT, PassingError, UserError, one_line
from pipeline.runtime.files import look_again, read_file, remove, write_text
from pipeline.runtime.limits import JSON_BYTES
from pipeline.runtime.project import in_project
from pipeline.runtime.uris import scrubbed

DAMAGED = (None, errno.ENOENT, errno.EINVAL, errno.EIO)  # of errors of a damaged or missing file
MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # in torch's messages


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
    """The line for an error that is not a `UserError`, at the end of a stage or command. Of a bug
    it names the file with the traceback, which is printed as well in a submitted job, whose files
    nobody can open.

    Args:
        name: of the stage or command.

    Raises:
        Exception: the error itself, if no file can be written, or the output's reader has left.
    """
    if isinstance(error, BrokenPipeError):
        raise error
    inner = innermost(error)
    if lacks_memory(inner):
        return in_a_line(inner)
    if isinstance(inner, OSError) and inner.errno in (WAYS_OUT if inner.filename else SYSTEM):
        way_out = f"{WAYS_OUT[inner.errno]} and run again"
        return scrubbed(str(UserError(str(inner.filename or ""), str(inner.strerror), way_out)))
    text = scrubbed("".join(traceback.format_exception(error)))
    if "MASKGIT_COMMIT" in os.environ:  # of `tools/submit`
        print(text, file=sys.stderr)
    with contextlib.suppress(UserError, OSError):
        runs = in_project("runs")
        known = runs.is_dir() and in_project("dvc.yaml").exists()  # other programs have runs, too
        folder = runs if known else Path(tempfile.gettempdir())
        file = folder / f"traceback-{name}.txt"
        write_text(file, text.encode("utf-8", "backslashreplace").decode())
        return f"{one_line(scrubbed(in_a_line(error)))} (unexpected: traceback in {file})"
    raise error


def innermost(error: BaseException) -> BaseException:
    """The error inside of Ray's, which wrap it several times."""
    inside = list(getattr(error, "worker_failures", {}).values())
    inside += [getattr(error, name, None) for name in ("controller_failure", "cause", "_base_exc")]
    for cause in inside:
        if isinstance(cause, BaseException):
            return innermost(cause)
    return error


def lacks_memory(error: BaseException) -> bool:
    """Whether there was not enough memory: for Python, NumPy, PyTorch, or a file to be mapped."""
    words = (*MEMORY, os.strerror(errno.ENOMEM))
    library = isinstance(error, RuntimeError | OSError) or type(error).__name__ == "SafetensorError"
    return isinstance(error, MemoryError) or (library and any(w in str(error) for w in words))


def require_readable(path: Path, error: BaseException, instead: str = "") -> None:
    """Tell a file that cannot be read from a damaged one: return if it is damaged or missing.

    Args:
        error: raised when the file, or one in the folder, was read.
        instead: the other way out, as words that follow "run again,".

    Raises:
        PassingError: the system cannot read it (permissions, a stale handle, too little memory), so
            that it must not be removed.
    """
    if isinstance(error.__cause__, OSError):
        error = error.__cause__
    way_out = f"run again, {instead}" if instead else "run again"
    if lacks_memory(error):
        raise PassingError(str(path), "cannot be read now (not enough memory)", way_out) from error
    if isinstance(error, OSError) and error.errno not in DAMAGED:
        if not instead and error.errno in WAYS_OUT:
            way_out = f"{WAYS_OUT[error.errno]} and run again"
        reason = f"cannot be read now ({error.strerror})"
        raise PassingError(str(path), reason, way_out) from error


def in_a_line(error: BaseException) -> str:
    """The first line of the innermost error; with its type, unless it is a `UserError`."""
    inner = innermost(error)
    line, name = str(inner).strip().partition("\n")[0], type(inner).__name__
    if isinstance(inner, UserError):
        return line
    if lacks_memory(inner):
        way_out = "use a smaller batch_size or network (params.yaml), or a larger machine"
        return str(UserError("there is not enough memory", line, way_out))
    return f"{name}: {line}" if line else name
