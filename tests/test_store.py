"""Copies of run directories in an object store: here one that talks S3."""

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
def address(objects, request):
    return "s3://store/some/where"


def names(objects) -> list[str]:
    return sorted(o.key for o in objects.objects.all() if not o.key.endswith("/"))


def named(path: str, content: bytes) -> str:
    return f"some/where/{path}@{len(content)}-{hashlib.sha256(content).hexdigest()}"


def lay(folder: Path, **contents: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def wait_for(true, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert true()


@pytest.mark.parametrize(
    "name", ["checkpoint.pt", "rows of ü @3.json", "shard.gz", "a@5-b", "x" * 150]
)
def test_what_was_put_comes_back(address, tmp_path, name):
    content = os.urandom(1000)
    folder = lay(tmp_path / RUN, **{name: content})
    Store(address).put(folder / name, f"{RUN}/train/{name}")
    assert bring(Store(address), RUN, tmp_path / "new") == 1
    assert (tmp_path / "new/train" / name).read_bytes() == content


def test_a_file_that_is_there_stays(address, tmp_path):
    folder = lay(tmp_path / RUN, a=b"old", b=b"b")
    for name in "ab":
        Store(address).put(folder / name, f"{RUN}/{name}")
    new = lay(tmp_path / "new", a=b"mine")
    assert bring(Store(address), RUN, new) == 1
    assert (new / "a").read_bytes() == b"mine" and (new / "b").read_bytes() == b"b"


def test_an_upload_that_was_cut_short_is_no_copy(address, objects, tmp_path):
    objects.put_object(Key=named(f"{RUN}/a", b"older"), Body=b"older")
    time.sleep(1.1)  # S3 tells the time in seconds
    objects.put_object(Key=named(f"{RUN}/a", b"content"), Body=b"con")
    assert bring(Store(address), RUN, tmp_path) == 1
    assert (tmp_path / "a").read_bytes() == b"older"


def test_a_copy_whose_content_changed_is_passed_over(address, objects, tmp_path, capsys):
    objects.put_object(Key=named(f"{RUN}/a", b"older"), Body=b"older")
    time.sleep(1.1)
    objects.put_object(Key=named(f"{RUN}/a", b"content"), Body=b"CONTENT")
    assert bring(Store(address), RUN, tmp_path) == 1
    assert (tmp_path / "a").read_bytes() == b"older"
    assert "is damaged, and is left there" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path",
    [
        f"{RUN}/../../../escaped",
        f"{RUN}//etc/escaped",
        f"{RUN}/.lock",
        f"{RUN}/./escaped",
        f"{RUN}/.hidden/escaped",
    ],
)
def test_names_that_lead_elsewhere_are_passed_over(address, objects, tmp_path, path):
    objects.put_object(Key=named(path, b"x"), Body=b"x")
    objects.put_object(Key="some/where/" + RUN + "/of another kind", Body=b"x")
    folder = lay(tmp_path / "storage" / RUN)
    assert bring(Store(address), RUN, folder) == 0
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_store_that_is_not_there_is_one_line(tmp_path, objects, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(
        StoreError, match=r"^ray\.storage_path: s3://store/x cannot be read .*folder$"
    ):
        Store("s3://store/x").copies(RUN)
    assert time.monotonic() - began < 20


def test_a_bucket_that_is_not_there_is_one_line(objects):
    with pytest.raises(UserError, match=r"^ray\.storage_path: s3://another/x cannot be read"):
        Store("s3://another/x").copies(RUN)


class Courting:
    """A courier of one run directory, which looks often."""

    def __init__(self, address: str, storage: Path):
        self.folder = lay(storage / RUN)
        self.courier = Courier(Store(address), storage, lambda: [self.folder])


@pytest.fixture
def courting(address, tmp_path, monkeypatch):
    monkeypatch.setattr(courier, "ROUND", 0.05)
    found = Courting(address, tmp_path / "storage")
    yield found
    found.courier.close(0)


def test_a_courier_copies_what_changes(courting, objects):
    lay(courting.folder, checkpoint=b"one")
    wait_for(lambda: names(objects) == [named(f"{RUN}/checkpoint", b"one")])
    lay(courting.folder, checkpoint=b"number two")
    wait_for(lambda: names(objects) == [named(f"{RUN}/checkpoint", b"number two")])
    lay(courting.folder / "part", rows=b"rows")
    assert courting.courier.close() is None
    assert len(names(objects)) == 2


def test_a_courier_leaves_what_is_half_written_and_links(courting, objects, tmp_path):
    secret = lay(tmp_path / "elsewhere", secret=b"secret")
    lay(courting.folder / ".checkpoint.pt.0123abcd.tmp", half=b"half")
    lay(courting.folder, **{".lock": b"", ".owner.json": b"{}"})
    (courting.folder / "link").symlink_to(secret / "secret")
    (courting.folder / "folder").symlink_to(secret)
    lay(courting.folder, whole=b"whole")
    assert courting.courier.close() is None
    assert names(objects) == [named(f"{RUN}/whole", b"whole")]


def test_of_checkpoints_with_folders_of_their_own_those_stay_that_are_there(courting, objects):
    def checkpoint(number: int) -> str:
        lay(courting.folder / f"train/checkpoint_{number}", **{"checkpoint.pt": b"%d" % number})
        return named(f"{RUN}/train/checkpoint_{number}/checkpoint.pt", b"%d" % number)

    kept = [checkpoint(1), checkpoint(2)]
    wait_for(lambda: names(objects) == kept)
    (courting.folder / "train/checkpoint_1/checkpoint.pt").unlink()
    kept = [kept[1], checkpoint(3)]
    wait_for(lambda: names(objects) == kept)
    assert courting.courier.close() is None and names(objects) == kept


def test_what_a_stage_moves_away_stays_in_the_store(courting, objects):
    lay(courting.folder / "shards", one=b"1", two=b"2")
    wait_for(lambda: len(names(objects)) == 2)
    (courting.folder / "shards").rename(courting.folder.parents[1] / "published")
    lay(courting.folder, rows=b"rows")
    assert courting.courier.close() is None
    assert len(names(objects)) == 3


def test_what_the_disk_has_damaged_takes_no_copys_place(address, objects, tmp_path):
    """The copy of a file that did not change while a courier looked is the better one."""
    good = b"a whole checkpoint"
    objects.put_object(Key=named(f"{RUN}/checkpoint.pt", good), Body=good)
    folder = lay(tmp_path / RUN, **{"checkpoint.pt": b"damaged"})
    assert Courier(Store(address), tmp_path, lambda: [folder]).close() is None
    assert names(objects) == [named(f"{RUN}/checkpoint.pt", good)]
    lay(folder, new=b"new")
    assert Courier(Store(address), tmp_path, lambda: [folder]).close() is None
    assert len(names(objects)) == 2


def test_a_store_that_goes_away_is_told_of(courting, monkeypatch):
    lay(courting.folder, checkpoint=b"one")
    wait_for(lambda: courting.courier._stamps)

    def away(self, file, path):
        raise StoreError("ray.storage_path: s3://store/some/where took no copy (it is away)")

    monkeypatch.setattr(Store, "put", away)
    lay(courting.folder, checkpoint=b"number two")
    text = courting.courier.close()
    assert text.startswith("the newest files of runs are not all in s3://store/some/where yet")
    assert "it is away" in text


def test_a_run_directory_is_brought_to_another_machine(address, tmp_path, monkeypatch, capsys):
    store.store_at.cache_clear()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "one"))
    first = runs.run_dir("train_transformer", {"key": 1}, address)
    assert first.is_relative_to(tmp_path / "one/runs/train_transformer")
    lay(first, rows=b"rows")
    assert Courier(store.store_at(address), tmp_path / "one/runs", lambda: [first]).close() is None
    store.store_at.cache_clear()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "two"))
    second = runs.run_dir("train_transformer", {"key": 1}, address)
    assert (second / "rows").read_bytes() == b"rows"
    assert f"2 files came from {address}" in capsys.readouterr().out  # key.json, too
    other = runs.run_dir("train_transformer", {"key": 2}, address)
    assert [p.name for p in other.iterdir() if not p.name.startswith(".")] == ["key.json"]


def test_a_copy_has_a_name_that_says_what_it_is():
    assert Copy("a/b/c", 3, "0" * 64).name == "a/b/c@3-" + "0" * 64
