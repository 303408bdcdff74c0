"""What every error that a user may see has to be."""

import pytest


def one_line(error: pytest.ExceptionInfo) -> str:
    """The message, which must be one line."""
    assert "\n" not in str(error.value)
    return str(error.value)
