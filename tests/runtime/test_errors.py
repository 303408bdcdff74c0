"""Errors are printed as one line that says what to do and contains no password."""

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.runtime import limits
from pipeline.runtime.errors import ArgumentError, PassingError, UserError, one_line
from pipeline.runtime.failures import bug, in_a_line, require_readable
from pipeline.runtime.secrets import redacted, server_of
from tests.project import ROOT

SHOW = f"{sys.executable} -m pipeline params"
CPU = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"
CUDA = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 10.00 GiB"


def system_error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


def test_an_error_is_its_three_parts_in_one_line():
    error = UserError("training.lr", "2 is too\nhigh", "use less")
    assert str(error) == "training.lr: 2 is too high; use less"
    assert str(UserError("a sentence; with its way out")) == "a sentence; with its way out"
    for kind in (UserError, PassingError, ArgumentError):  # Ray pickles the errors of workers
        copy = pickle.loads(pickle.dumps(kind("a", "b", "c")))
        assert (copy.subject, copy.reason, copy.way_out) == ("a", "b", "c")
    assert isinstance(error, Exception) and issubclass(ArgumentError, ValueError)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\tof\x00γ 日本", "two lines of\\x00γ 日本"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\udcff bytes", "\\udcff bytes"),
    ],
)
def test_a_message_is_one_line_of_what_can_be_printed(text, shown):
    assert one_line(text) == str(UserError(text)) == shown
    assert one_line(shown) == shown


def test_long_words_and_messages_are_shortened_in_the_middle():
    path = "/start/" + "x" * 900 + "/end.png"
    line = one_line(f"{path} is broken; delete it")
    assert line.startswith("/start/") and "/end.png is broken; delete it" in line
    assert len(line.split()[0]) == limits.WORD
    line = one_line("word " * 1000 + "end")
    assert len(line) == limits.MESSAGE and line.endswith("word end") and one_line(line) == line


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-", "> /dev/full"])
def test_output_that_cannot_be_written_is_no_traceback(closed):
    """A closed output causes no error; a full disk causes an error of one line."""
    command = ["bash", "-c", f"{SHOW} {closed}"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    full = "full" in closed
    assert ended.returncode == full and ended.stdout == ""
    assert len(ended.stderr.splitlines()) == full and ended.stderr.startswith("error: " * full)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (system_error(errno.ENOSPC, "a/b"), "a/b: No space left on device; make room"),
        (system_error(errno.ENOSPC), "No space left on device; make room"),
        (system_error(errno.EACCES, "a/b"), "a/b: Permission denied; change the permissions"),
        (system_error(errno.ENOTDIR, "a/b"), "a/b: Not a directory; move away the file"),
        (MemoryError(), "there is not enough memory; use a smaller batch_size"),
        (RuntimeError(CPU), f"there is not enough memory: {CPU}; use a smaller"),
        (torch.OutOfMemoryError(CUDA), f"there is not enough memory: {CUDA}; use a smaller"),
    ],
)
def test_an_error_of_the_system_is_no_bug(error, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bug(error, "stage").startswith(line) and not list(tmp_path.iterdir())


def test_the_error_inside_of_rays_is_what_is_told():
    class OfRay(Exception):
        """Like Ray's errors, which store the original error in different attributes."""

        def __init__(self, **inside):
            super().__init__("a page\n\nof traceback\n")
            self.__dict__.update(inside)

    full = UserError("cannot write a", "No space left on device")
    assert in_a_line(OfRay(worker_failures={1: OfRay(_base_exc=full)})) == str(full)
    assert in_a_line(OfRay(cause=ValueError("one\ntwo"))) == "ValueError: one"
    assert in_a_line(OfRay(controller_failure=OfRay(cause=None))) == "OfRay: a page"
    assert in_a_line(RuntimeError()) == "RuntimeError"


@pytest.mark.parametrize(
    ("error", "damaged"),
    [
        (ValueError("no tensors"), True),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), True),
        (system_error(errno.EIO), True),  # a bad sector
        (OSError("Couldn't deserialize thrift"), True),  # pyarrow's error for a damaged file
        (system_error(errno.EACCES), False),
        (RuntimeError(CPU), False),
    ],
)
def test_a_file_that_cannot_be_read_is_not_taken_for_damaged(error, damaged):
    if damaged:
        require_readable(Path("a.pt"), error)
        return
    with pytest.raises(PassingError) as raised:
        require_readable(Path("a.pt"), error)
    assert raised.value.subject == "a.pt" and raised.value.reason.startswith("cannot be read now")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:s3cr%2Ft@host:1/a", "http://user:***@host:1/a"),
        ("postgresql://user:a@b/s3cr%2Ft@host/db", "postgresql://user:***@host/db"),
        ("user:s3cr%2Ft@host:1", "user:***@host:1"),
        ("mysql://host/db?user=me;pwd=s3cr%2Ft", "mysql://host/db?user=me;pwd=***"),
        ("mysql://host/db?access_token=s3cr%2Ft&a=b#c", "mysql://host/db?access_token=***&a=b#c"),
        ("mssql://?odbc_connect=DRIVER%3DX%3BPWD%3Ds3cr%2Ft", "mssql://?odbc_connect=***"),
        ("https://s3cr%2Ft@host:1/a", "https://***@host:1/a"),
        ("http://host/?keyspace=a&monkey=b", "http://host/?keyspace=a&monkey=b"),
        ("sqlite:////a:b/c.db", "sqlite:////a:b/c.db"),
    ],
)
def test_an_address_is_shown_without_its_password(uri, shown):
    assert redacted(uri) == shown


@pytest.mark.parametrize("uri", ["http://me:s3cr%2Ft@host", "mysql://host/db?password=s3cr%2Ft"])
def test_a_message_is_shown_without_the_password_of_the_tracking_server(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert redacted("refused s3cr%2Ft and s3cr/t") == "refused *** and ***"
    assert redacted(f"no {uri}") == f"no {redacted(uri)}"


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"])
def test_a_message_is_shown_without_what_the_environment_holds(name, monkeypatch):
    monkeypatch.setenv(name, "s3cr/t")
    assert redacted("refused: s3cr/t") == "refused: ***"
    monkeypatch.setenv(name, "no")  # too short to be distinguished from ordinary text
    assert redacted("there is no host, ask me@host") == "there is no host, ask me@host"


def test_the_host_of_an_address():
    assert server_of("http://me:x@host:5000/a") == ("host", 5000)
    assert server_of("https://host") == ("host", 443)
    for uri in ("http://host:port", "http://[host", "http://", "sqlite:///a.db", "host:1"):
        assert server_of(uri) is None
