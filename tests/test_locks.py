"""Locks of folders that several processes write to."""

import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import TextIO

from pipeline.runtime import locks
from pipeline.runtime.locks import lock_at, waited_for


def test_a_line_says_what_is_waited_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "PATIENT", 0.1)
    path = tmp_path / ".lock"
    with waited_for(path):
        assert capsys.readouterr().err == ""
    held = lock_at(path)
    held.acquire()
    started = multiprocessing.get_context("fork").Process(target=_wait_for, args=(path,))
    started.start()
    deadline = time.monotonic() + 20
    while not (tmp_path / "said").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    held.release()
    started.join(20)
    assert started.exitcode == 0
    assert (tmp_path / "said").read_text() == f"waiting for {path}, which another process holds"


def _wait_for(path: Path) -> None:
    def say(text: str, file: TextIO, flush: bool) -> None:
        assert file is sys.stderr and flush
        part = path.with_name("part")
        part.write_text(text)
        os.replace(part, path.with_name("said"))

    vars(locks)["print"] = say
    with waited_for(path):
        pass
