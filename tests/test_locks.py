"""Locks of folders that several processes write to."""

import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import TextIO

import pytest

from pipeline.runtime import locks
from pipeline.runtime.checksums import shared_folder
from pipeline.runtime.errors import UserError
from pipeline.runtime.locks import lock_at, waited_for
from pipeline.runtime.runs import own_folder


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


def test_a_folder_that_its_holder_deletes_is_everybodys_in_turn(tmp_path):
    """As the parts of features: who waits finds no folder, and makes it."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_use_and_delete, args=(tmp_path,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert (tmp_path / "log").read_text() == "in out " * 100


def _use_and_delete(place: Path) -> None:
    folder = place / "x.parts"
    for _ in range(25):
        with shared_folder(folder, place / ".x.lock"), open(place / "log", "a") as log:
            log.write("in ")
            log.flush()
            (folder / "part").touch()
            (folder / "part").unlink()
            folder.rmdir()
            log.write("out ")


@pytest.mark.parametrize("kind", ["link", "file", "folder", "nothing"])
def test_a_folder_of_our_own_is_no_link_to_anybody_elses(tmp_path, kind):
    own, others = tmp_path / "run/parts", tmp_path / "others"
    others.mkdir()
    (others / ".a.npy.0123abcd.tmp").write_text("mine")
    own.parent.mkdir()
    if kind == "link":
        own.symlink_to(others)
    elif kind == "file":
        own.write_text("x")
    elif kind == "folder":
        own.mkdir()
        (own / "kept").write_text("x")
    with shared_folder(own, tmp_path / "run/.lock"):
        (own / "part").write_text("x")
    assert own_folder(own) == own and not own.is_symlink()
    assert (own / "kept").exists() == (kind == "folder")
    assert [p.name for p in others.iterdir()] == [".a.npy.0123abcd.tmp"]


def test_a_file_in_the_place_of_a_folder_around_it_is_named_with_the_way_out(tmp_path):
    (tmp_path / "runs").write_text("x")
    with (
        pytest.raises(UserError, match=r"cannot write .*something else lies in its place"),
        shared_folder(tmp_path / "runs/features"),
    ):
        pass
