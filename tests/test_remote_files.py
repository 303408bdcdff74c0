"""A node that does not see the project takes what stages made from the DVC remote, and from the
stage's own node what that does not give."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from dvc.config import Config

from pipeline.runtime import remote_files as module
from pipeline.runtime.errors import UserError
from pipeline.runtime.home import Home, Stamp, listed
from pipeline.runtime.parcels import pack
from pipeline.runtime.remote import Remote, default_remote, output_at
from pipeline.runtime.remote_files import RemoteFiles
from tests.project import SECRET
from tests.pushed_project import MADE, configure, make_and_push, pushed_project
from tests.two_nodes import Cluster


@pytest.fixture
def folder(objects, tmp_path, monkeypatch) -> Path:
    """The project, which is the working directory."""
    pushed_project(tmp_path / "project", monkeypatch)
    return tmp_path / "project"


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
def test_a_file_that_the_remote_lacks_comes_from_home(cluster, folder, objects, body, capsys):
    """And no other."""
    key = object_of("a.bin")
    if body is None:
        objects.Object(key).delete()
    else:
        objects.put_object(Key=key, Body=body)
    assert brought(cluster, folder) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert "does not get all of images from the DVC remote s3://store/of/mine, but from" in line
    assert line.endswith("the stage's own node: it lacks 1 of 3 files")


@pytest.mark.parametrize("kind", ["gone", "forged", "no list"])
def test_another_list_of_files_is_not_believed(cluster, folder, objects, kind, capsys):
    """Who may write to the remote does not choose what a node works with: dvc.lock does."""
    md5 = output_at(folder, "data/images").md5
    listing = objects.Object(f"of/mine/files/md5/{md5[:2]}/{md5[2:]}")
    if kind == "gone":
        listing.delete()
    else:
        evil = hashlib.md5(b"EVIL!!").hexdigest()
        objects.put_object(Key=f"of/mine/files/md5/{evil[:2]}/{evil[2:]}", Body=b"EVIL!!")
        forged = json.loads(listing.get()["Body"].read())
        forged[0]["md5"] = evil
        listing.put(Body=json.dumps(forged).encode() if kind == "forged" else b"{}")
    assert brought(cluster, folder) == 2
    assert "it lacks the list of its files" in capsys.readouterr().out


def test_a_remote_that_is_away_is_one_line_and_no_secret(cluster, folder, capsys, monkeypatch):
    configure(endpointurl="http://127.0.0.1:9")
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    capsys.readouterr()
    assert brought(cluster, folder) == 3  # an empty file has no parts
    (line,) = capsys.readouterr().out.splitlines()
    assert "does not get all of images" in line and SECRET not in line


@pytest.mark.parametrize(
    ("settings", "text", "shown"),
    [
        ({"passphrase": "hunter22"}, "bad hunter22", "bad ***"),
        ({"access_key_id": "abcd", "secret_access_key": "abcdEFGH"}, "abcdEFGH", "***"),
        ({"password": "a/b c"}, "at a%2Fb%20c", "at ***"),
        ({"ask_password": True, "region": "us-east"}, "True us-east", "True us-east"),
    ],
)
def test_what_is_shown_of_a_remote_has_no_secret(settings, text, shown):
    assert Remote("store", {"url": "s3://a"} | settings).without_secrets(text) == shown


def test_errors_show_no_key_of_the_remote(folder, monkeypatch, capsys):
    remote = default_remote()
    assert SECRET not in repr(remote) and SECRET not in str(output_at(folder, "data/images"))

    def fails(output: Any) -> None:
        raise module.NotGiven(f"403 for me with {SECRET} at s3://me:pass@store")

    monkeypatch.setattr(module, "_Stored", fails)
    RemoteFiles().fetched(output_at(folder, "data/images"), folder, {"a.bin": Stamp(6, 1)})
    said = capsys.readouterr().out
    assert "403 for me with *** at s3://me:***@store" in said and SECRET not in said


def test_a_large_output_is_a_line(folder, monkeypatch, capsys):
    monkeypatch.setattr(module, "LARGE", 5)
    there = folder.parent / "there"
    RemoteFiles().fetched(output_at(folder, "data/images"), there, {"a.bin": Stamp(6, 1)})
    assert "gets there from the DVC remote: 0.0 GB" in capsys.readouterr().out


def test_what_a_killed_process_left_is_gone(folder):
    there = folder.parent / "there"
    left = there / "in/.b ü.bin.0123abcd.tmp"
    left.parent.mkdir(parents=True)
    left.touch()
    output = output_at(folder, "data/images")
    assert RemoteFiles().fetched(output, there, {"a.bin": Stamp(6, 1)}) == ["a.bin"]
    assert not left.exists()


def test_a_disk_that_takes_no_file_is_told_as_such(folder):
    (folder.parent / "there").touch()
    output = output_at(folder, "data/images")
    with pytest.raises(UserError, match=r"cannot write .*there/a.bin"):
        RemoteFiles().fetched(output, folder.parent / "there", {"a.bin": Stamp(6, 1)})


def test_where_stages_push_nothing_the_remote_is_not_asked(cluster, folder):
    cluster._actor = Home(str(folder), str(folder.parent / "runs"))
    assert brought(cluster, folder) == 3


def test_only_what_a_finished_stage_made_lies_in_the_remote(folder):
    assert output_at(folder, "data/images").md5.endswith(".dir")
    assert output_at(folder, "source") is None
    Path("dvc.lock").unlink()
    assert output_at(folder, "data/images") is None


@pytest.mark.parametrize(
    "lock",
    ["", "[]", "stages:", "{}", "stages: {a: null}", "stages: {a: {outs: [x]}}", "stages: ["],
)
def test_a_lock_that_does_not_say_is_no_error_of_a_workers(folder, lock):
    Path("dvc.lock").write_text(lock)
    assert output_at(folder, "data/images") is None


def test_a_project_without_a_remote_has_no_output_there(folder):
    with Config(".dvc").edit("local") as config:
        del config["core"]["remote"]
    assert output_at(folder, "data/images") is None
