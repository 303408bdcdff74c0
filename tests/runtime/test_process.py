"""The output of a process, its interruption, and the number of cores that it uses."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.runtime import process
from pipeline.runtime.process import cores, reader_may_leave
from pipeline.runtime.progress import Countdown, progress
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
    assert ended.stderr == "error: interrupted; run again to resume\n"
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, "")


def test_a_line_is_shown_at_once_and_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-c", PRINTING]
    with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as it:
        assert it.stdout.readline() == b"a\n" and it.poll() is None
        it.stdout.close()
        said = it.stderr.read()
        assert (it.wait(timeout=60), said) == (1, b"")
    with pytest.raises(BrokenPipeError), reader_may_leave():  # the error of another pipe
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
    """Ray sets OMP_NUM_THREADS in workers. Without a valid number, a process uses all 7 cores."""
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(process.os, "sched_getaffinity", lambda pid: set(range(7)), raising=False)
    assert cores() == expected


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The current time in seconds, in a list that a test may change."""
    value = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: value[0])
    return value


def test_a_log_has_a_line_for_each_fifth_of_the_work(now, capsys):
    with progress("sample", 0, 100) as update:
        for done in range(1, 101):
            update(done, "loss 1")
    with progress("silent", 0, 100, enabled=False) as update:
        update(100)
    with progress("slow", 0, 4, pause=10) as update:
        for done in range(1, 5):
            now[0] += 6
            update(done)
    lines = [f"sample {done}/100  loss 1" for done in (1, 21, 41, 61, 81, 100)]
    assert capsys.readouterr().out.splitlines() == [*lines, "slow 2/4", "slow 4/4"]


def test_a_countdown_counts_all_and_reckons_with_those_of_this_run(now, capsys):
    count = Countdown("sweep", "trials", total=21, pending=3)
    now[0] += 3600
    count.done("cosine/seed0")
    now[0] += 120
    count.done("linear/seed0")
    count.done("cubic/seed0")
    assert capsys.readouterr().out.splitlines() == [
        "sweep: 21 trials, 18 already finished",
        "sweep: cosine/seed0 done, 19 of 21, about 2 h 0 min left",
        "sweep: linear/seed0 done, 20 of 21, about 31 min left",  # two trials took 62 min
        "sweep: cubic/seed0 done, 21 of 21",
    ]
