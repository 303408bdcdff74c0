"""A process that is told to end ends, and says nothing, whatever it is in the middle of."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.runtime.process import (
    _ignore_what_libraries_cannot_read,
    cores,
    reader_may_leave,
)
from tests.project import ROOT

# As Ray's handler in a driver does; `weak` and `del` are where Python itself cannot pass it on.
PROGRAM = """
import os, signal, sys, time, weakref
from pipeline.runtime.process import set_up

set_up()
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background has not
told = getattr(signal, sys.argv[1])


class Held:
    pass


class Deleted:
    def __del__(self):
        signal.raise_signal(told)


try:
    if sys.argv[2] == "weak":
        held = Held()
        reference = weakref.ref(held, lambda gone: signal.raise_signal(told))
        del held
    else:
        Deleted()
    time.sleep(20)
    print("went on")
finally:
    print("tidied up")
"""


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("where", ["weak", "del"])
def test_a_signal_in_a_callback_of_python_ends_the_process_without_a_word(where):
    ended = run("SIGTERM", where)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "tidied up\n", "")


def test_so_does_ctrl_c():
    ended = run("SIGINT", "weak")
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, "tidied up\n")
    assert ended.stderr == "error: interrupted; run again to go on\n"


@pytest.mark.parametrize("module", ["stages.prepare", "stages.sweep", "analysis", "pipeline"])
def test_ctrl_c_is_one_line_though_the_libraries_are_still_being_imported(module):
    """Which takes seconds: torch is one that every stage imports first of all, or MLflow."""
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
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ended.stderr == "error: interrupted; run again to go on\n"
    assert (ended.returncode, ended.stdout) == (-signal.SIGINT, "")


def test_other_errors_in_a_callback_are_still_shown():
    program = """
import weakref
from pipeline.runtime.process import set_up


class Held:
    pass


set_up()
held = Held()
reference = weakref.ref(held, lambda gone: 1 / 0)
del held
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert "ZeroDivisionError" in ended.stderr


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(finished, tmp_path):
    """As `| head` does that has its lines."""
    project = finished.copy(tmp_path / "project")
    for module in ("pipeline summary", "stages.schedules", "analysis"):
        process = subprocess.Popen(
            (sys.executable, "-m", *module.split()),
            cwd=project.folder,
            env=project.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        process.stdout.close()
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (1, b""), module


def test_a_pipe_that_is_no_reader_of_ours_is_an_error_still():
    with pytest.raises(BrokenPipeError), reader_may_leave():
        raise BrokenPipeError


def test_letters_that_the_output_lacks_are_escaped():
    program = (
        "from pipeline.runtime.process import reader_may_leave\n"
        "with reader_may_leave(): print('4×4 \\udcff')"
    )
    for encoding, said in (("ascii", b"4\\xd74 \\udcff\n"), ("utf-8", b"4\xc3\x974 \\udcff\n")):
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            timeout=30,
        )
        assert (ended.returncode, ended.stdout) == (0, said)


@pytest.mark.parametrize("name", ["MININTERVAL", "NCOLS", "ncols", "DELAY", "TOTAL", "INITIAL"])
@pytest.mark.parametrize("value", ["abc", ""])
def test_a_setting_of_bars_that_is_no_number_is_ignored_with_a_line(name, value):
    program = "from pipeline.runtime.process import set_up; set_up(); from tqdm import tqdm"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {f"TQDM_{name}": value, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    line = f"note: TQDM_{name} is ignored: {value!r} is no number; unset it\n"
    assert (ended.returncode, ended.stderr) == (0, line)


def test_a_line_is_shown_in_a_pipe_when_it_is_printed():
    program = (
        "import time; from pipeline.runtime.process import reader_may_leave\n"
        "with reader_may_leave(): print('a'); time.sleep(60)"
    )
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    command, env = [sys.executable, "-c", program], buffered | {"PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "a\n"
        process.kill()
    assert time.monotonic() - began < 50


def test_an_output_that_is_open_for_reading_alone_is_as_a_closed_one():
    with open(os.devnull) as nowhere:
        ended = subprocess.run(
            [sys.executable, "-m", "pipeline", "params"],
            cwd=ROOT,
            stdout=nowhere,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
        )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_time_of_downloads_that_is_no_number_is_ignored_with_a_line():
    program = (
        "from pipeline.runtime.process import set_up; set_up(); import huggingface_hub.constants"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"HF_HUB_DOWNLOAD_TIMEOUT": "x", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    line = "note: HF_HUB_DOWNLOAD_TIMEOUT is ignored: 'x' is no number; unset it\n"
    assert (ended.returncode, ended.stderr) == (0, line)


@pytest.mark.parametrize("value", ["abc", "", "1.5", "9" * 30, "9" * 5000])
def test_a_time_of_files_that_is_none_is_ignored_with_a_line(value):
    """At its import NumPy makes a time of it."""
    program = "from pipeline.runtime.process import set_up; set_up(); import numpy.f2py"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"SOURCE_DATE_EPOCH": value, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    line = f"{repr(value)[:80]} is no time in seconds; unset it\n"
    assert (ended.returncode, ended.stderr) == (0, f"note: SOURCE_DATE_EPOCH is ignored: {line}")


@pytest.mark.parametrize("value", ["", "0", "-1", "x", "²", "1.5", "9" * 5000, "9" * 400])
def test_a_number_of_threads_that_is_none_is_not_taken(monkeypatch, value):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    own = cores()
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert cores() == own
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cores() == 3


def test_other_settings_of_bars_are_kept(monkeypatch, capsys):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for name, value in (("TQDM_MININTERVAL", "2.5"), ("TQDM_DISABLE", "yes"), ("TQDM_NCOLS", "80")):
        monkeypatch.setenv(name, value)
    _ignore_what_libraries_cannot_read()
    assert os.environ["SOURCE_DATE_EPOCH"] == "1700000000"
    assert os.environ["TQDM_MININTERVAL"] == "2.5" and os.environ["TQDM_NCOLS"] == "80"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("module", "kept"), [("triton", True), ("other", False)])
def test_a_program_ends_without_a_search_for_garbage_unless_a_library_reports_it(module, kept):
    program = (
        "import gc, sys; from pipeline.runtime.process import end_quickly\n"
        "sys.modules[sys.argv[1]] = sys; had = gc.get_freeze_count(); end_quickly()\n"
        "print(gc.get_freeze_count() == had)"  # Python itself may have some
    )
    command, env = [sys.executable, "-c", program, module], os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    assert (ended.stdout, ended.stderr) == (f"{kept}\n", "")
