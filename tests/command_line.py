"""Runs the command line in this process."""

import sys
from typing import NamedTuple

import pytest

from pipeline.cli.app import main


class Done(NamedTuple):
    code: int
    out: str
    err: str


def maskgit(*arguments: str, capsys: pytest.CaptureFixture) -> Done:
    """Run `maskgit` with these arguments: its exit code and what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["maskgit", *arguments])
        code, line = 0, ""
        try:
            main()
        except SystemExit as stop:
            # sys.exit(text) prints the text and ends with code 1
            code, line = (stop.code, "") if isinstance(stop.code, int) else (1, f"{stop.code}\n")
    assert "unexpected: traceback" not in line, line
    printed = capsys.readouterr()
    return Done(code, printed.out, printed.err + line)
