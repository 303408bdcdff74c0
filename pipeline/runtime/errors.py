"""The one exception that a user is meant to read, and its form: one line."""

import errno
from pathlib import Path

from pipeline.runtime.limits import MESSAGE, WORD

FULL = (errno.ENOSPC, errno.EDQUOT)  # the system's errors for a full disk
MOVE = "something else lies in its place, or in that of a folder around it: move it away"
SYSTEM = {  # what a user can do about an error of the system, by its number
    **dict.fromkeys(FULL, "make room"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more of them (`ulimit -n`)"),
}
WAYS_OUT = SYSTEM | {  # and about one of a path
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), MOVE),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change its permissions"),
    errno.EROFS: "make its file system writable",
    errno.ELOOP: "a link leads to itself: delete it",
}


class UserError(Exception):
    """Something the user can put right; as text one line, `subject: reason; way out`.

    Args:
        subject: the file, param, option or server that is wrong, or a whole sentence.
        reason: what is wrong with it.
        way_out: what the user can do.
    """

    def __init__(self, subject: str, reason: str = "", way_out: str = ""):
        super().__init__(subject, reason, way_out)
        self.subject, self.reason, self.way_out = subject, reason, way_out

    def __str__(self) -> str:
        what = ": ".join(filter(None, (self.subject, self.reason)))
        return one_line("; ".join(filter(None, (what, self.way_out))))


class PassingError(UserError):
    """A transient error: Ray retries up to its limit before the user sees it."""


class ArgumentError(UserError, ValueError):
    """A caller passed a value that is not allowed; the message names the allowed ones. In Python
    it is a `ValueError`, on the command line one line."""


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error to raise when a file or folder cannot be written."""
    way_out = WAYS_OUT.get(error.errno or 0, "make room or change permissions")
    if error.errno == errno.ENOENT:
        way_out = "its folder was moved or deleted: go to where it is now"
    way_out = f"{way_out} and run again, finished work is kept"
    return UserError(f"cannot write {path}", error.strerror or str(error), way_out)


def one_line(text: str) -> str:
    """The text as one line for a terminal. File names and values of params may hold anything:
    characters that cannot be printed are escaped, long words are shortened in the middle."""
    words = (_shortened(printable(word), WORD) for word in text.split())
    return _shortened(" ".join(words), MESSAGE)


def printable(text: str) -> str:
    """The text with control characters, and bytes of file names that are not UTF-8, escaped."""
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # Python's stand-in for a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[head + len(text) - most + 1 :]}"
