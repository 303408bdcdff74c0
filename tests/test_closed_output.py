"""What is printed can go nowhere: no traceback, and what was asked for is done."""

import errno
import os
import subprocess
import sys

import pytest

from pipeline.runtime.failures import bug
from tests.project import ROOT

SHOW = f"{sys.executable} -m pipeline params"


def _run(redirected: str) -> tuple[int, str]:
    """Exit code, and what is left on a standard error that is open."""
    ended = subprocess.run(
        ["bash", "-c", f"{SHOW} {redirected}"], cwd=ROOT, capture_output=True, text=True
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_outputs_are_no_error(closed):
    assert _run(closed) == (0, "")


def test_a_full_disk_under_the_output_is_a_line():
    code, said = _run("> /dev/full")
    assert code == 1 and "Traceback" not in said
    (line,) = said.splitlines()
    assert line.startswith("error: ") and line.endswith("make room")


def test_a_full_disk_is_no_bug():
    error = OSError(errno.ENOSPC, "No space left on device", "a/b")
    assert bug(error, "stage") == "No space left on device: a/b; make room"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ELOOP])
def test_a_file_that_the_system_refuses_is_no_bug(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = bug(OSError(number, os.strerror(number), "models/a.safetensors"), "stage")
    assert line.startswith(f"models/a.safetensors: {os.strerror(number)}; ")
    assert line.endswith(" and run again") and not list(tmp_path.iterdir())
