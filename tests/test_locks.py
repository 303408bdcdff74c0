"""Locks of folders that several processes write to."""

import multiprocessing
from pathlib import Path

import pytest

from pipeline.runtime.checksums import shared_folder
from pipeline.runtime.errors import UserError
from pipeline.runtime.runs import own_folder


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
