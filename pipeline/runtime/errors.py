"""Errors whose messages users read. Each message is printed as one line."""

import errno
from pathlib import Path

from pipeline.runtime.limits import MESSAGE, WORD

_MOVE = "move away the file or folder that is in the way"
WAYS_OUT = {  # errno of an operating system error -> what the user can do
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (`ulimit -n`)"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), _MOVE),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change the permissions"),
    errno.EROFS: "make the file system writable",
}


class UserError(Exception):
    """An error that the user can correct. Its text is one line, `subject: reason; way out`.

    Args:
        subject: the wrong file, param, option or server; without a `reason`, the whole message.
        reason: what is wrong with the subject.
        way_out: how the user can correct the error.
    """

    def __init__(self, subject: str, reason: str = "", way_out: str = ""):
        super().__init__(subject, reason, way_out)
        self.subject, self.reason, self.way_out = subject, reason, way_out

    def __str__(self) -> str:
        what = ": ".join(filter(None, (self.subject, self.reason)))
        return one_line("; ".join(filter(None, (what, self.way_out))))


class PassingError(UserError):
    """A transient error. Ray restarts a trial that raises it, up to `ray.max_failures` times."""


class ArgumentError(UserError, ValueError):
    """An argument has a value that is not allowed; the message says what is allowed. In Python,
    the error is also a `ValueError`; on the command line, it is printed as one line."""


def cannot_write(path: Path, error: OSError) -> UserError:
    """Return the error to raise if a file or folder cannot be written."""
    advice = WAYS_OUT.get(error.errno or 0, "check the folder and the disk")
    way_out = f"{advice} and run again (finished work is kept)"
    return UserError(f"cannot write {path}", error.strerror or str(error), way_out)


def one_line(text: str) -> str:
    """Return the text as one line for a terminal, with long words shortened in the middle."""
    words = (_shortened(printable(word), WORD) for word in text.split())
    return _shortened(" ".join(words), MESSAGE)


def printable(text: str) -> str:
    """Escape control characters and, in file names, bytes that are not valid UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-most // 2 :]}"
