"""The thread that copies checkpoints into an object store while a stage works."""

import time

import pytest

from pipeline.runtime import courier
from pipeline.runtime.courier import Courier
from pipeline.runtime.store import Store, StoreError
from tests.object_store import ADDRESS, RUN, lay, named, names, wait_for


@pytest.fixture
def courting(objects, tmp_path, monkeypatch):
    """Begin to look at a run directory, often."""
    monkeypatch.setattr(courier, "ROUND", 0.05)
    begun = []

    def begin() -> Courier:
        begun.append(Courier(Store(ADDRESS), tmp_path, lambda: [tmp_path / RUN]))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


def test_the_newest_two_checkpoints_are_kept(courting, objects, tmp_path):
    found, kept = courting(), []
    for step in (1, 2, 3):
        content = b"of step %d" % step
        lay(tmp_path / RUN, content, changed=1000 * step)
        kept.append(named(f"{RUN}/checkpoint.pt", content, 1000 * step))
        wait_for(lambda: names(objects) == set(kept[-2:]))
    assert found.close() is None


def test_of_ray_too_and_those_of_other_trainings_stay(courting, objects, tmp_path):
    lay(tmp_path / RUN / "other", b"other", 1000)
    kept = []
    for step in (1, 2, 3):
        path, content = f"{RUN}/train/checkpoint_{step}", b"of step %d" % step
        lay(tmp_path / path, content, changed=1000 * step)
        kept.append(named(f"{path}/checkpoint.pt", content, 1000 * step))
        assert courting().close() is None
    assert names(objects) == {named(f"{RUN}/other/checkpoint.pt", b"other", 1000), *kept[-2:]}


def test_checkpoints_alone_are_copied_and_whole_ones(courting, objects, tmp_path):
    folder = tmp_path / RUN
    secret = lay(tmp_path / "elsewhere", b"secret", 1000)
    lay(folder / ".checkpoint_1.0123abcd.tmp", b"half", 1000)
    lay(folder, b"{}", 1000, "key.json")
    lay(folder, b"half", 1000, ".checkpoint.pt.0123abcd.tmp")
    (folder / "link").mkdir()
    (folder / "link/checkpoint.pt").symlink_to(secret)
    lay(folder, b"whole", 1000)
    assert courting().close() is None
    assert names(objects) == {named(f"{RUN}/checkpoint.pt", b"whole", 1000)}


def test_what_is_in_the_store_is_not_copied_again(courting, objects, tmp_path, monkeypatch):
    lay(tmp_path / RUN, b"one", 1000)
    assert courting().close() is None
    put = []
    monkeypatch.setattr(Store, "put", lambda self, file, path: put.append(path))
    assert courting().close() is None
    lay(tmp_path / RUN, b"damaged", 1000)  # by the disk: the copy is the better one
    assert courting().close() is None and put == []


def test_keys_that_may_not_remove_keep_no_copy_from_being_made(objects, tmp_path, monkeypatch):
    def refused(self, copy):
        raise StoreError("let no copy be removed")

    monkeypatch.setattr(Store, "remove", refused)
    folders = [tmp_path / f"train_transformer/{number}" for number in range(3)]
    for changed in (1000, 2000, 3000):
        for folder in folders:
            lay(folder, b"of %d" % changed, changed)
        said = Courier(Store(ADDRESS), tmp_path, lambda: folders).close()
    assert "let no copy be removed" in said and len(names(objects)) == 9


def test_a_terminal_that_is_gone_ends_no_courier(courting, objects, tmp_path, monkeypatch):
    def gone(*text, **options):
        raise BrokenPipeError

    def unreadable(self, file, path):
        raise PermissionError("no permission")

    put = Store.put
    monkeypatch.setattr(Store, "put", unreadable)
    monkeypatch.setattr(courier, "print", gone, raising=False)
    lay(tmp_path / RUN, b"one", 1000)
    found = courting()
    wait_for(lambda: found._problem == "no permission")
    monkeypatch.setattr(Store, "put", put)
    wait_for(lambda: found._problem is None)
    assert found.close() is None and len(names(objects)) == 1


def test_a_store_that_goes_away_is_told_of_once(courting, tmp_path, monkeypatch, capsys):
    found, put = courting(), Store.put

    def away(self, file, path):
        raise StoreError("it is away")

    monkeypatch.setattr(Store, "put", away)
    lay(tmp_path / RUN, b"one", 1000)
    wait_for(lambda: found._problem == "it is away")
    time.sleep(0.3)
    monkeypatch.setattr(Store, "put", put)
    wait_for(lambda: found._problem is None)
    monkeypatch.setattr(Store, "put", away)
    lay(tmp_path / RUN, b"two", 2000)
    said = found.close()
    assert said == "the last checkpoint may have no copy in s3://store/some/where (it is away)"
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "it is away",
        "s3://store/some/where takes copies again",
    ]
