"""The one exception a user is meant to read."""

import errno
from pathlib import Path

from pipeline.runtime.limits import MESSAGE, WORD

FULL = (errno.ENOSPC, errno.EDQUOT)  # what the system says where a disk has no room


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
    """What may be over by itself: Ray tries again, as often as it may, before the user reads it."""


class ArgumentError(UserError, ValueError):
    """A value that a caller gave is not allowed; the message says which are. In Python it is a
    `ValueError`, and on the command line one line like any other."""


def cannot_write(path: Path, error: OSError) -> str:
    """The message where a file or folder cannot be written."""
    way_out = "make room or change permissions"
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        way_out = "something else lies in its place, or in that of a folder around it: move it away"
    if error.errno == errno.ENOENT and not path.parent.exists():
        way_out = "its folder is gone: if it was moved or deleted meanwhile, go to where it is now"
    return (
        f"cannot write {path}: {error.strerror or error}; {way_out} and run again, nothing made so "
        f"far is lost"
    )


def one_line(text: str) -> str:
    """The text as it may stand in one line of a terminal: names of files and values of params may
    hold anything. What cannot be printed is escaped, long words are shortened in the middle."""
    words = (_shortened(printable(word), WORD) for word in text.split())
    return _shortened(" ".join(words), MESSAGE)


def printable(text: str) -> str:
    """The text with everything that cannot be printed (control characters, bytes of a file's name
    that are not UTF-8) as an escape; other text stays as it is."""
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python stands for a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[head + len(text) - most + 1 :]}"
