"""A node that does not see the project takes what stages made from the DVC remote, and from the
stage's own node what that does not give."""

import os
import time
from pathlib import Path

import pytest
from dvc.config import Config
from dvc.repo import Repo

from pipeline.runtime import remote_files as module
from pipeline.runtime.errors import UserError
from pipeline.runtime.home import Home, Stamp, listed
from pipeline.runtime.parcels import pack
from pipeline.runtime.remote import default_remote, output_at
from pipeline.runtime.remote_files import fetched
from pipeline.tools.submit.remote import push
from tests.project import SECRET
from tests.two_nodes import Cluster

MADE = {"a.bin": b"pixels", "in/b ü.bin": b"x" * 70_000, "empty": b""}
DAG = """
stages:
  prepare: {cmd: cp -r source/images source/table.csv data, outs: [data/images, data/table.csv]}
"""


def configure(**settings: str) -> None:
    """Let the project here have a default remote, with those settings besides what it has."""
    with Config(".dvc").edit("local") as config:
        config["core"] |= {"remote": "store", "no_scm": True}
        config["remote"].setdefault("store", {}).update(settings)


def make_and_push() -> None:
    with Repo() as repo:
        repo.reproduce(force=True)
    push(default_remote())


@pytest.fixture
def folder(objects, tmp_path, monkeypatch) -> Path:
    """A project that has pushed what its stage made to a store; the working directory."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(folder)
    for name, content in MADE.items():
        path = Path("source/images", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    Path("source/table.csv").write_text("a table\n")
    Path("dvc.yaml").write_text(DAG)
    Repo.init(no_scm=True).close()
    keys = {"access_key_id": "me", "secret_access_key": SECRET}
    endpoint = {"endpointurl": os.environ["AWS_ENDPOINT_URL"]}
    configure(url="s3://store/of/mine", **keys, **endpoint)
    make_and_push()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)  # the remote's settings have them
    return folder


@pytest.fixture
def cluster(folder, monkeypatch) -> Cluster:
    """A job's: what its stages made was pushed."""
    runs = folder.parent / "runs"
    cluster = Cluster(folder, runs, ["data/images", "data/table.csv"], monkeypatch)
    cluster._actor = Home(str(folder), str(runs), pushed=True)
    return cluster


def brought(cluster: Cluster, folder: Path) -> int:
    """Let a worker elsewhere have the images; how many parts of files it got from home."""
    cluster.at("home")
    parcel = pack(folder / "data/images")
    cluster.at("away")
    cluster.calls.clear()
    with parcel.opened() as (images,):
        assert "away" in str(images)
        assert {name: (images / name).read_bytes() for name in listed(images)} == MADE
        assert listed(images) == listed(folder / "data/images")
        assert (images.parent / "table.csv").read_text() == "a table\n"
    return cluster.calls.count("read")


def test_what_stages_made_comes_from_the_remote(cluster, folder, capsys):
    assert brought(cluster, folder) == 0
    assert "output" in cluster.calls and capsys.readouterr().out == ""


def test_a_node_that_has_it_asks_the_remote_for_nothing(cluster, folder, monkeypatch):
    brought(cluster, folder)
    monkeypatch.setattr(module, "_Stored", None)
    assert brought(cluster, folder) == 0 and "output" not in cluster.calls


def test_one_that_changed_at_home_comes_anew(cluster, folder, monkeypatch):
    """Made again, and pushed: its time is another, and its hash."""
    brought(cluster, folder)
    monkeypatch.chdir(folder)
    Path("source/images/a.bin").write_bytes(b"others")
    make_and_push()
    cluster.at("home")
    parcel = pack(folder / "data/images")
    cluster.at("away")
    with parcel.opened() as (images,):
        assert (images / "a.bin").read_bytes() == b"others"


def object_of(name: str) -> str:
    """The key of a file of the images in the store."""
    stored = module._Stored(output_at(Path(), "data/images"))
    return stored._objects.oid_to_path(stored.hashes[name]).removeprefix("store/")


@pytest.mark.parametrize("body", [None, b"pixelS", b"pix"], ids=["gone", "other", "short"])
def test_what_the_remote_does_not_give_comes_from_home(cluster, folder, objects, body, capsys):
    key = object_of("a.bin")
    if body is None:
        objects.Object(key).delete()
    else:
        objects.put_object(Key=key, Body=body)
    assert brought(cluster, folder) >= 1
    (line,) = capsys.readouterr().out.splitlines()
    assert "does not get images from the DVC remote s3://store/of/mine, but from the" in line


def test_a_remote_that_is_away_is_one_line_for_each_output_and_no_secret(
    cluster, folder, capsys, monkeypatch
):
    configure(endpointurl="http://127.0.0.1:9")
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    capsys.readouterr()
    assert brought(cluster, folder) == 3  # an empty file has no parts
    output = capsys.readouterr().out
    assert output.count("does not get") == len(output.splitlines()) == 2 and SECRET not in output


def test_a_remote_that_does_not_answer_is_waited_for_no_longer_than_it_may(
    folder, monkeypatch, capsys
):
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    monkeypatch.setattr(module, "_Stored", lambda output: time.sleep(60))
    output, began = output_at(folder, "data/images"), time.monotonic()
    assert fetched(output, folder.parent / "there", {"a.bin": Stamp(6, 1)}) == []
    assert time.monotonic() - began < 10
    assert "it did not answer in 0.1 s" in capsys.readouterr().out


def test_a_disk_that_takes_no_file_is_told_as_such(folder):
    (folder.parent / "there").touch()
    output = output_at(folder, "data/images")
    with pytest.raises(UserError, match=r"cannot write .*there/a.bin"):
        fetched(output, folder.parent / "there", {"a.bin": Stamp(6, 1)})


def test_where_stages_push_nothing_the_remote_is_not_asked(cluster, folder):
    cluster._actor = Home(str(folder), str(folder.parent / "runs"))
    assert brought(cluster, folder) == 3


def test_only_what_a_finished_stage_made_lies_in_the_remote(folder):
    assert output_at(folder, "data/images").md5.endswith(".dir")
    assert output_at(folder, "source") is None
    Path("dvc.lock").unlink()
    assert output_at(folder, "data/images") is None


def test_a_project_without_a_remote_has_no_output_there(folder):
    with Config(".dvc").edit("local") as config:
        del config["core"]["remote"]
    assert output_at(folder, "data/images") is None
