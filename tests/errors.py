"""The form that every error shown to users must have."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.runtime.errors import UserError


@contextmanager
def refused(
    subject: object = None, reason: str = "", way_out: str = "", *, match: str | None = None
) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """The block must raise a `UserError` in one line, with a way out.

    Args:
        subject: the whole subject; None: any.
        reason: a part of the reason.
        way_out: a part of the way out.
        match: a regular expression that the line must match.
    """
    with pytest.raises(UserError, match=match) as error:
        yield error
    found = error.value
    assert subject is None or found.subject == str(subject)
    assert reason in found.reason and way_out in found.way_out
    assert "; " in str(found) and str(found).isprintable()
