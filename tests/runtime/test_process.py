"""What a process prints, how it is interrupted, and how many cores it uses."""

import os
import signal
import subprocess
import sys

import pytest

from pipeline.runtime import process
from pipeline.runtime.process import cores, reader_may_leave
from tests.project import ROOT

ENV = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | {"PYTHONPATH": str(ROOT)}
PRINTING = """
import time
from pipeline.runtime.process import reader_may_leave
with reader_may_leave():
    print('a')
    time.sleep(3)
    print("b")
"""


@pytest.mark.parametrize("module", ["stages", "analysis", "pipeline"])
def test_ctrl_c_is_one_line_while_libraries_are_imported(module):
    program = f"""
import builtins, runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
load = builtins.__import__

def interrupted(name, *arguments, **named):
    if name.partition(".")[0] in ("torch", "numpy", "pandas", "mlflow", "typer"):
        signal.raise_signal(signal.SIGINT)
    return load(name, *arguments, **named)

builtins.__import__ = interrupted
runpy.run_module({module!r}, run_name="__main__")
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stderr == "error: interrupted; run again to go on\n"
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, "")


def test_a_line_is_shown_at_once_and_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-c", PRINTING]
    with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as it:
        assert it.stdout.readline() == b"a\n" and it.poll() is None
        it.stdout.close()
        said = it.stderr.read()
        assert (it.wait(timeout=60), said) == (1, b"")


def test_another_pipe_that_breaks_is_an_error():
    with pytest.raises(BrokenPipeError), reader_may_leave():
        raise BrokenPipeError


def test_errors_of_libraries_are_logged_but_not_by_workers():
    program = "import logging; from pipeline.runtime import process; process.{}()\n"
    program += "logging.getLogger('ray').warning('notice'); logging.getLogger('ray').error('error')"
    for name, said in (("set_up", "error\n"), ("set_up_worker", "")):
        command = [sys.executable, "-c", program.format(name)]
        ended = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stderr) == (0, said)


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("0", 7), ("", 7), ("x", 7)])
def test_a_process_uses_the_cores_that_it_was_given(monkeypatch, given, expected):
    """OMP_NUM_THREADS says how many, of Ray's workers too; the machine may have more."""
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(process.os, "sched_getaffinity", lambda pid: set(range(7)), raising=False)
    assert cores() == expected
