"""Turns errors of Ray workers, and unexpected errors of stages and commands, into one line."""

import contextlib
import errno
import os
import sys
import traceback
from pathlib import Path

from pipeline.runtime.errors import WAYS_OUT, PassingError, UserError, one_line
from pipeline.runtime.project import in_project
from pipeline.runtime.secrets import redacted

DAMAGED = (None, errno.ENOENT, errno.EINVAL, errno.EIO)  # errno of a damaged or missing file
MEMORY = ("allocate memory", "not enough memory", "out of memory")  # in messages of other libraries


def bug(error: Exception, name: str) -> str:
    """The line to print when an error other than a `UserError` ends a stage or command. If the line
    gives no advice, it names a file with the traceback. Jobs of `maskgit submit` also print the
    traceback. Raises `error` itself if it is a BrokenPipeError or the file cannot be written."""
    if isinstance(error, BrokenPipeError):
        raise error
    inner = innermost(error)
    if lacks_memory(inner):
        return in_a_line(inner)
    own = ("pipeline", "stages", "analysis")
    if isinstance(inner, ModuleNotFoundError) and not str(inner.name).startswith(own):
        way_out = "run `pip install 'maskgit-pipeline[pipeline]'`, or `make env` in a clone"
        return str(UserError(name, f"needs {inner.name}, which is not installed", way_out))
    if isinstance(inner, OSError) and inner.errno in WAYS_OUT:
        way_out = f"{WAYS_OUT[inner.errno]} and run again"
        return redacted(str(UserError(str(inner.filename or ""), str(inner.strerror), way_out)))
    text = redacted("".join(traceback.format_exception(error)))
    if "MASKGIT_COMMIT" in os.environ:  # set by `maskgit submit`
        print(text, file=sys.stderr)
    with contextlib.suppress(OSError):
        file = in_project(f"runs/traceback-{name}.txt")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8", errors="backslashreplace")
        return f"{one_line(redacted(in_a_line(error)))} (unexpected: traceback in {file})"
    raise error


def innermost(error: BaseException) -> BaseException:
    """The original error inside the Ray errors that wrap it."""
    inside = [*getattr(error, "worker_failures", {}).values()]
    # Private attributes: Ray Train has no public one for the wrapped error.
    inside += [getattr(error, name, None) for name in ("controller_failure", "cause", "_base_exc")]
    causes = [cause for cause in inside if isinstance(cause, BaseException)]
    return innermost(causes[0]) if causes else error


def lacks_memory(error: BaseException) -> bool:
    """Whether the error means that Python, NumPy, PyTorch or a memory map ran out of memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in MEMORY)


def require_readable(path: Path, error: BaseException) -> None:
    """Raise a `PassingError` if `error` means that the file cannot be read now (permissions, stale
    handle, too little memory). Do nothing if the file is damaged or missing."""
    if isinstance(error.__cause__, OSError):
        error = error.__cause__
    if lacks_memory(error) or (isinstance(error, OSError) and error.errno not in DAMAGED):
        reason = f"cannot be read now ({getattr(error, 'strerror', '') or 'not enough memory'})"
        way_out = "check the file's permissions and the disk, and run again"
        raise PassingError(str(path), reason, way_out) from error


def in_a_line(error: BaseException) -> str:
    """The first line of an error's message, without the text of Ray errors that wrap it. The line
    begins with the error's type, unless the error is a `UserError`."""
    inner = innermost(error)
    line, name = str(inner).strip().partition("\n")[0], type(inner).__name__
    if isinstance(inner, UserError):
        return line
    if lacks_memory(inner):
        way_out = "use a smaller batch_size or network, or a machine with more memory"
        return str(UserError("there is not enough memory", line, way_out))
    return f"{name}: {line}" if line else name
