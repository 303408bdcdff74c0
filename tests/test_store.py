"""Copies of checkpoints in an object store: here one that talks S3."""

import hashlib
import os
import time
from pathlib import Path

import boto3
import pytest

from pipeline.runtime import courier, runs, store
from pipeline.runtime.courier import Courier
from pipeline.runtime.errors import UserError
from pipeline.runtime.store import Copy, Store, StoreError, bring
from tests.job_elsewhere import s3_store
from tests.project import SECRET

RUN = "train_transformer/0123456789abcdef"


@pytest.fixture(scope="module")
def server():
    with s3_store() as url:
        yield url


@pytest.fixture
def objects(server, monkeypatch):
    """The bucket, and the environment by which it is found."""
    environment = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bucket = boto3.resource("s3", endpoint_url=server).Bucket("store")
    yield bucket
    bucket.objects.all().delete()


@pytest.fixture
def address(objects):
    return "s3://store/some/where"


def names(objects) -> set[str]:
    return {o.key for o in objects.objects.all() if not o.key.endswith("/")}


def named(path: str, content: bytes, changed: int) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return f"some/where/{path}@{changed}-{len(content)}-{digest}"


def lay(folder: Path, content: bytes, changed: int, name: str = "checkpoint.pt") -> Path:
    """A file as it was written at some time."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / ".aside"
    aside.write_bytes(content)
    os.utime(aside, ns=(changed, changed))
    return aside.rename(folder / name)


def wait_for(true, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert true()


@pytest.mark.parametrize("folder", [RUN, f"{RUN}/train", f"{RUN}/train/checkpoint_7", f"{RUN}/a ü"])
def test_what_was_put_comes_back_with_its_time(address, tmp_path, folder):
    content = os.urandom(20_000_000)
    file = lay(tmp_path / "old" / folder, content, changed=1_700_000_000_123_456_700)
    copy = Store(address).put(file, f"{folder}/checkpoint.pt")
    bring(Store(address), RUN, tmp_path / "new" / RUN)
    brought = tmp_path / "new" / folder / "checkpoint.pt"
    assert brought.read_bytes() == content and brought.stat().st_mtime_ns == copy.changed


def test_of_two_machines_the_newer_checkpoint_is_taken(address, objects, tmp_path):
    """On the machine that was first, too, when it is back."""
    objects.put_object(
        Key=named(f"{RUN}/checkpoint.pt", b"of step 5000", 2000), Body=b"of step 5000"
    )
    for changed, expected in ((1000, b"of step 5000"), (3000, b"mine")):
        file = lay(tmp_path / str(changed), b"mine", changed)
        bring(Store(address), RUN, file.parent)
        assert file.read_bytes() == expected


def test_what_the_disk_has_damaged_is_brought_anew(address, objects, tmp_path):
    objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"whole", 1000), Body=b"whole")
    file = lay(tmp_path, b"wHole", 1000)
    bring(Store(address), RUN, tmp_path)
    assert file.read_bytes() == b"whole"


@pytest.mark.parametrize("body", [b"con", b"CONTENT"], ids=["cut short", "changed"])
def test_a_copy_that_is_not_whole_is_passed_over(address, objects, tmp_path, body, capsys):
    objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"older", 1000), Body=b"older")
    objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"content", 2000), Body=body)
    bring(Store(address), RUN, tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"older"
    assert ("is gone or damaged" in capsys.readouterr().out) == (body == b"CONTENT")


def test_a_copy_that_is_gone_by_now_is_passed_over(address, objects, tmp_path):
    objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"older", 1000), Body=b"older")
    gone = objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"newer", 2000), Body=b"newer")
    store = Store(address)
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
def test_other_objects_are_passed_over(address, objects, tmp_path, path):
    objects.put_object(Key=named(path, b"x", 1000), Body=b"x")
    objects.put_object(Key=f"some/where/{RUN}/checkpoint.pt", Body=b"x")
    bring(Store(address), RUN, tmp_path / RUN)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_of_ray_the_list_goes_when_a_checkpoint_comes_that_is_not_in_it(address, objects, tmp_path):
    path = f"{RUN}/train/checkpoint_2026-2/checkpoint.pt"
    objects.put_object(Key=named(path, b"new", 2000), Body=b"new")
    lay(tmp_path / "train/checkpoint_2026-1", b"old", 1000)
    listing = lay(tmp_path / "train", b"{}", 1000, store.LISTING)
    bring(Store(address), RUN, tmp_path)
    assert not listing.exists()
    assert (tmp_path / "train/checkpoint_2026-2/checkpoint.pt").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("s3://store/x", "http://127.0.0.1:9"),
        ("s3://store/x", "ftp://127.0.0.1"),
        ("s3://another/x", ""),
    ],
    ids=["nobody there", "no HTTP", "no bucket"],
)
def test_a_store_that_is_not_there_is_one_line(objects, monkeypatch, given, endpoint):
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    began = time.monotonic()
    line = rf"^ray\.storage_path: {given} cannot be read \(.* or give a folder$"
    with pytest.raises(UserError, match=line):
        Store(given).copies(RUN)
    assert time.monotonic() - began < 20


def test_a_full_disk_is_not_the_stores_fault(address, objects, tmp_path, monkeypatch):
    objects.put_object(Key=named(f"{RUN}/checkpoint.pt", b"x", 1000), Body=b"x")

    def full(self, copy, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "_read", full)
    with pytest.raises(UserError, match=r"^cannot write .*checkpoint\.pt: No space left"):
        bring(Store(address), RUN, tmp_path)


@pytest.fixture
def courting(address, tmp_path, monkeypatch):
    """Begin to look at a run directory, often."""
    monkeypatch.setattr(courier, "ROUND", 0.05)
    begun = []

    def begin() -> Courier:
        begun.append(Courier(Store(address), tmp_path, lambda: [tmp_path / RUN]))
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
    monkeypatch.setattr(Store, "put", lambda self, file, path: pytest.fail("it was there"))
    assert courting().close() is None
    lay(tmp_path / RUN, b"damaged", 1000)  # by the disk: the copy is the better one
    assert courting().close() is None


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
        "s3://store/some/where: no copies now: it is away",
        "s3://store/some/where: copies are made again",
    ]


def test_a_run_directory_gets_the_checkpoint_of_another_machine(address, tmp_path, monkeypatch):
    def directory(machine: str, key: int) -> Path:
        store.store_at.cache_clear()
        monkeypatch.setenv("DVC_ROOT", str(tmp_path / machine))
        return runs.run_dir("train_transformer", {"key": key}, address)

    first = directory("one", 1)
    assert first.is_relative_to(tmp_path / "one/runs/train_transformer")
    lay(first, b"of step 1", 1000)
    assert Courier(Store(address), tmp_path / "one/runs", lambda: [first]).close() is None
    assert (directory("two", 1) / "checkpoint.pt").read_bytes() == b"of step 1"
    assert not (directory("two", 2) / "checkpoint.pt").exists()


def test_a_copy_has_a_name_that_says_what_it_is():
    copy = Copy(changed=5, size=3, hash="0" * 64, path="a/b/checkpoint.pt")
    assert copy.name == f"a/b/checkpoint.pt@5-3-{'0' * 64}"
