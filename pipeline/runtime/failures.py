"""How an error gets out of Ray's workers, and how an unexpected one gets out of a stage or a
command: as one line."""

import contextlib
import errno
import os
import sys
import tempfile
import traceback
from pathlib import Path

from pipeline.runtime.errors import SYSTEM, WAYS_OUT, PassingError, UserError, one_line
from pipeline.runtime.files import write_text
from pipeline.runtime.project import in_project
from pipeline.runtime.secrets import redacted

DAMAGED = (None, errno.ENOENT, errno.EINVAL, errno.EIO)  # of errors of a damaged or missing file
MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # in torch's messages


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
        return redacted(str(UserError(str(inner.filename or ""), str(inner.strerror), way_out)))
    text = redacted("".join(traceback.format_exception(error)))
    if "MASKGIT_COMMIT" in os.environ:  # of `tools/submit`
        print(text, file=sys.stderr)
    with contextlib.suppress(UserError, OSError):
        runs = in_project("runs")
        known = runs.is_dir() and in_project("dvc.yaml").exists()  # other programs have runs, too
        folder = runs if known else Path(tempfile.gettempdir())
        file = folder / f"traceback-{name}.txt"
        write_text(file, text.encode("utf-8", "backslashreplace").decode())
        return f"{one_line(redacted(in_a_line(error)))} (unexpected: traceback in {file})"
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
