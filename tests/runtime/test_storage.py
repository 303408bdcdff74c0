"""Copies of run directories in an object store, on a local server with the S3 API."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from pipeline.runtime.errors import UserError
from pipeline.runtime.storage import download, open_storage, storage, upload, use_storage
from tests.errors import refused
from tests.object_store import s3_store
from tests.project import SECRET, free_port

ADDRESS = "s3://store/some/where"


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Iterator[Path]:
    """The folder of run directories, with an open object store for their copies."""
    with s3_store() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        open_storage(ADDRESS, tmp_path / "runs")
        yield tmp_path / "runs"
        use_storage(None)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_another_machine_gets_what_was_uploaded_and_keeps_what_it_has(runs, monkeypatch):
    here, other = write(runs / "cas/key/a/row.json", "1"), write(runs / "cas/key/b ü", "2")
    for path in (here, other, write(runs / "cas/other/row.json", "3")):
        upload(path)
    url = storage().files.storage_options["endpoint_url"]
    objects = boto3.resource("s3", endpoint_url=url, region_name="us-east-1").Bucket("store")
    assert "some/where/cas/key/a/row.json" in {o.key for o in objects.objects.all()}
    here.unlink()
    other.write_text("newer")
    (runs / "cas/other/row.json").unlink()
    download(runs / "cas/key", runs / "sweep/none")
    assert here.read_text() == "1" and other.read_text() == "newer"
    assert not (runs / "cas/other/row.json").exists()
    assert not list(runs.rglob("*.tmp"))


def test_a_folder_as_storage_path_copies_nothing(tmp_path):
    open_storage("runs", tmp_path)
    assert storage() is None
    upload(tmp_path / "missing")
    download(tmp_path)
    with pytest.raises(UserError, match=r"ray\.storage_path"):  # no package supports this protocol
        open_storage("nothing://bucket/x", tmp_path)


@pytest.mark.slow
def test_work_goes_on_without_the_store_and_a_stage_does_not_begin(runs, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    open_storage(ADDRESS, runs)
    upload(write(runs / "cas/key/row.json", "1"))
    printed = capsys.readouterr().out
    assert "row.json was not sent to the object store: ray.s" in printed and SECRET not in printed
    with refused("ray.storage_path") as error:
        download(runs / "cas/key")
    assert storage().files.storage_options["secret"] == SECRET
    assert SECRET not in f"{error.value} {storage()} {storage()!r}"
