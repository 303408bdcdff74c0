"""Copies of checkpoints in an object store: here one that talks S3."""

import io
import os
import time
from pathlib import Path

import pytest
import torch

from pipeline.runtime import runs, store
from pipeline.runtime.courier import Courier
from pipeline.runtime.errors import UserError
from pipeline.runtime.store import Copy, Store, bring
from pipeline.training.loop import RunDirSession
from pipeline.training.loop.ray_checkpoints import unlisted_checkpoint
from tests.object_store import ADDRESS, RUN, lay, named


@pytest.mark.parametrize("folder", [RUN, f"{RUN}/train", f"{RUN}/train/checkpoint_7", f"{RUN}/a ü"])
def test_what_was_put_comes_back_with_its_time(objects, tmp_path, folder):
    content = os.urandom(20_000_000)
    file = lay(tmp_path / "old" / folder, content, changed=1_700_000_000_123_456_700)
    copy = Store(ADDRESS).put(file, f"{folder}/checkpoint.pt")
    bring(Store(ADDRESS), RUN, tmp_path / "new" / RUN)
    brought = tmp_path / "new" / folder / "checkpoint.pt"
    assert brought.read_bytes() == content and brought.stat().st_mtime_ns == copy.changed


def test_of_two_machines_the_newer_checkpoint_is_taken(objects, tmp_path):
    """On the machine that was first, too, when it is back."""
    objects.put_object(
        Key=named(f"{RUN}/checkpoint.pt", b"of step 5000", 2000), Body=b"of step 5000"
    )
    for changed, expected in ((1000, b"of step 5000"), (3000, b"mine")):
        file = lay(tmp_path / str(changed), b"mine", changed)
        bring(Store(ADDRESS), RUN, file.parent)
        assert file.read_bytes() == expected


def test_a_newer_checkpoint_of_a_training_below_is_another_ones(objects, tmp_path):
    objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"copy", 1000), Body=b"copy")
    lay(tmp_path / "below", b"other", 2000)
    bring(Store(ADDRESS), RUN, tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"copy"


def test_what_the_disk_has_damaged_is_brought_anew(objects, tmp_path):
    objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"whole", 1000), Body=b"whole")
    file = lay(tmp_path, b"wHole", 1000)
    bring(Store(ADDRESS), RUN, tmp_path)
    assert file.read_bytes() == b"whole"


@pytest.mark.parametrize("body", [b"con", b"CONTENT"], ids=["cut short", "changed"])
def test_a_copy_that_is_not_whole_is_passed_over(objects, tmp_path, body, capsys):
    objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"older", 1000), Body=b"older")
    objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"content", 2000), Body=body)
    bring(Store(ADDRESS), RUN, tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"older"
    assert ("is gone or damaged" in capsys.readouterr().out) == (body == b"CONTENT")


def test_a_copy_that_is_gone_by_now_is_passed_over(objects, tmp_path):
    objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"older", 1000), Body=b"older")
    gone = objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"newer", 2000), Body=b"newer")
    store = Store(ADDRESS)
    assert len(store.copies(RUN)[RUN]) == 2
    gone.delete()
    bring(store, RUN, tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"older"


@pytest.mark.parametrize(
    "path",
    [
        f"{RUN}/../../../escaped/checkpoint.pt",
        f"{RUN}//etc/checkpoint.pt",
        f"{RUN}/./checkpoint.pt",
        f"{RUN}/.hidden/checkpoint.pt",
        f"{RUN}/.lock",
        f"{RUN}/key.json",
        f"{RUN}5/checkpoint.pt",
    ],
)
def test_other_objects_are_passed_over(objects, tmp_path, path):
    objects.put_object(Key=named(path, b"x", 1000), Body=b"x")
    objects.put_object(Key=f"some/where/{RUN}/checkpoint.pt", Body=b"x")
    bring(Store(ADDRESS), RUN, tmp_path / RUN)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def newer_than(own: str, objects, folder: Path) -> bytes:
    """A Ray Train run with a checkpoint of its own, and in the store a newer one: its content."""
    buffer = io.BytesIO()
    torch.save({"step": 500}, buffer)
    path, content = f"{RUN}/train/checkpoint_2/checkpoint.pt", buffer.getvalue()
    objects.put_object(Key=named(path, content, 2000), Body=content)
    lay(folder / "train" / own, b"old", 1000)
    lay(folder / "train", b"{}", 1000, store.LISTING)
    return content


@pytest.mark.parametrize("own", ["checkpoint_1", "checkpoint_3"], ids=["before", "behind"])
def test_ray_goes_on_from_the_checkpoint_that_came_whatever_it_had(objects, tmp_path, own):
    """Names are local times, which another machine's may be before."""
    content = newer_than(own, objects, tmp_path)
    bring(Store(ADDRESS), RUN, tmp_path)
    came = tmp_path / "train/checkpoint_2/checkpoint.pt"
    assert unlisted_checkpoint(tmp_path / "train") == came and came.read_bytes() == content


@pytest.mark.parametrize("own", ["checkpoint_1", "checkpoint_3"], ids=["before", "behind"])
def test_a_kill_when_it_has_come_does_not_lose_it(objects, tmp_path, monkeypatch, own):
    newer_than(own, objects, tmp_path)

    def killed(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store, "_be_the_only_one", killed)
        bring(Store(ADDRESS), RUN, tmp_path)
    bring(Store(ADDRESS), RUN, tmp_path)
    came = tmp_path / "train/checkpoint_2/checkpoint.pt"
    assert unlisted_checkpoint(tmp_path / "train") == came


@pytest.mark.parametrize(("copied", "expected"), [(1000, False), (2000, False), (3000, True)])
def test_the_checkpoint_before_counts_where_it_is_the_only_one(objects, tmp_path, copied, expected):
    """A kill between two renames leaves no other."""
    objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"copy", copied), Body=b"copy")
    lay(tmp_path, b"before", 2000, store.BEFORE)
    bring(Store(ADDRESS), RUN, tmp_path)
    assert (tmp_path / "checkpoint.pt").exists() == expected


def test_a_checkpoint_is_newer_than_that_of_a_machine_whose_clock_is_ahead(objects, tmp_path):
    tomorrow = time.time_ns() + 86_400 * 10**9
    objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"theirs", tomorrow), Body=b"theirs")
    folder = tmp_path / RUN
    bring(Store(ADDRESS), RUN, folder)
    session = RunDirSession(folder)
    for step in (1, 2):
        state = {"task": {}, "step": step, "history": [{"step": step}], "run": RUN}
        session.save(state, {"step": step})
    session.settle()
    assert Courier(Store(ADDRESS), tmp_path, lambda: [folder]).close() is None
    mine = (folder / "checkpoint.pt").read_bytes()
    for place in (folder, tmp_path / "another"):
        bring(Store(ADDRESS), RUN, place)
        assert (place / "checkpoint.pt").read_bytes() == mine


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("s3://store/x", "http://127.0.0.1:9"),
        ("s3://store/x", "ftp://127.0.0.1"),
        ("s3://store/x", "http://[::1"),
        ("s3://another/x", ""),
    ],
    ids=["nobody there", "no HTTP", "no address", "no bucket"],
)
def test_a_store_that_is_not_there_is_one_line(objects, monkeypatch, given, endpoint):
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    began = time.monotonic()
    line = rf"^ray\.storage_path: {given} cannot be read \(.* or give a folder$"
    with pytest.raises(UserError, match=line):
        Store(given).copies(RUN)
    assert time.monotonic() - began < 20


def test_a_full_disk_is_not_the_stores_fault(objects, tmp_path, monkeypatch):
    objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"x", 1000), Body=b"x")

    def full(self, copy, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "_read", full)
    with pytest.raises(UserError, match=r"^cannot write .*checkpoint\.pt: No space left"):
        bring(Store(ADDRESS), RUN, tmp_path)


def test_a_run_directory_gets_the_checkpoint_of_another_machine(objects, tmp_path, monkeypatch):
    def directory(machine: str, key: int) -> Path:
        store.store_at.cache_clear()
        monkeypatch.setenv("DVC_ROOT", str(tmp_path / machine))
        return runs.run_dir("train_transformer", {"key": key}, ADDRESS)

    first = directory("one", 1)
    assert first.is_relative_to(tmp_path / "one/runs/train_transformer")
    lay(first, b"of step 1", 1000)
    assert Courier(Store(ADDRESS), tmp_path / "one/runs", lambda: [first]).close() is None
    assert (directory("two", 1) / "checkpoint.pt").read_bytes() == b"of step 1"
    assert not (directory("two", 2) / "checkpoint.pt").exists()


def test_a_copy_has_a_name_that_says_what_it_is():
    copy = Copy(changed=5, size=3, hash="0" * 64, path="a/b/checkpoint.pt")
    assert copy.name == f"a/b/checkpoint.pt@5-3-{'0' * 64}"


def test_a_copy_that_is_gone_costs_nothing_that_is_here(objects, tmp_path):
    """The newest cannot be had; the one before is the one that is here."""
    path, content = f"{RUN}/train/checkpoint_2/checkpoint.pt", b"two"
    objects.put_object(Key=named(path, content, 2000), Body=content)
    gone = f"{RUN}/train/checkpoint_3/checkpoint.pt"
    objects.put_object(Key=named(gone, b"three", 3000), Body=b"damaged")
    lay(tmp_path / "train/checkpoint_1", b"one", 1000)
    lay(tmp_path / "train/checkpoint_2", content, 2000)
    lay(tmp_path / "train", b"{}", 1000, store.LISTING)
    bring(Store(ADDRESS), RUN, tmp_path)
    found = {path.name for path in (tmp_path / "train").iterdir()}
    assert found == {store.LISTING, "checkpoint_1", "checkpoint_2"}
