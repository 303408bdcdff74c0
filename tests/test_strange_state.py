"""What lies in the place of a file that a run keeps: a link, folder or pipe, too much, or another
training's. One line, or it is made again; nobody waits, and nobody's own file is touched."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.curves import check_curves
from pipeline.data.tokens import TokenCache
from pipeline.runtime.checksums import note_hash, shared_folder
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import SUMS, file_hash, read_json, tree_hash, value_hash
from pipeline.runtime.folders import atomic_folder
from pipeline.runtime.limits import JSON_BYTES, RECORD_BYTES
from pipeline.runtime.outbox import LOG, Outbox, read_records
from pipeline.runtime.runs import run_dir
from pipeline.runtime.sending import send
from pipeline.runtime.server import Server
from pipeline.runtime.sync import sync
from pipeline.training.loop import RunDirSession
from pipeline.training.loop.ray_checkpoints import LISTING, unlisted_checkpoint
from pipeline.training.tokens import write_manifest
from tests.damage import no_file, within
from tests.errors import one_line
from tests.interruption import Killed, KilledAfter, fit
from tests.test_loop import ToyTask
from tests.test_outbox import OPENED, line, opened
from tests.test_train_classifier import classifier_task

NO_FILES = ("fifo", "folder", "zero")


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    with within(60):
        yield


def _shared(folder: Path) -> None:
    with shared_folder(folder):
        pass


def _sent(folder: Path) -> None:
    Outbox(folder).append_open(OPENED)
    send(folder, Server("sqlite:///none.db"), {})


LOCKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "run directory": (".lock", lambda folder: run_dir("s", {"a": 1}, str(folder.parents[1]))),
    "shared folder": (".lock", _shared),
    "outbox": ("log.lock", lambda folder: Outbox(folder).append_open(OPENED)),
    "sending": ("sending.lock", _sent),
}


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(("name", "take"), LOCKS.values(), ids=list(LOCKS))
def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path, name, take, there):
    own = tmp_path / "own.txt"
    folder = tmp_path / "runs/s" / value_hash({"a": 1})[:16]
    folder.mkdir(parents=True)
    if there:
        own.write_text("mine")
    (folder / name).symlink_to(own)
    with pytest.raises(UserError, match=r"lock is a link.* and no lock file; delete it") as error:
        take(folder)
    one_line(error)
    assert own.exists() == there and (not there or own.read_text() == "mine")


def test_a_manifest_larger_than_any_is_not_read(tmp_path):
    with open(tmp_path / "manifest.json", "wb") as file:
        file.truncate(JSON_BYTES + 1)
    for read in (lambda: read_json(tmp_path / "manifest.json"), lambda: tree_hash(tmp_path)):
        with pytest.raises(UserError, match="more than the limit"):
            read()


def test_a_record_longer_than_any_is_left_out(tmp_path):
    long = line({"time": 1, "tags": {"a": "x" * RECORD_BYTES}})
    rest = line({"time": 1, "tags": {"b": "c"}})
    (tmp_path / LOG).write_bytes(opened() + long + rest + long[:-1])
    records = list(read_records(tmp_path / LOG, 0))
    assert [record.get("damaged") for _, record in records] == [None, "it is no JSON", None]
    assert records[-1][0] == len(opened() + long + rest)
    Outbox(tmp_path).append({"tags": {"d": "e"}})  # after what is whole
    assert [record for _, record in read_records(tmp_path / LOG, 0)][-1]["tags"] == {"d": "e"}


def test_labels_of_which_no_hash_is_noted_are_refused(tmp_path, params):
    """Those of others, as many, would pass for them."""
    for split in ("train", "val"):
        np.save(tmp_path / f"{split}-00000.npy", np.zeros((4, 1, params.num_tokens), np.uint16))
        np.save(tmp_path / f"{split}-labels.npy", np.arange(4, dtype=np.int32))
        note_hash(tmp_path / f"{split}-labels.npy")
    shards = {
        split: [{"file": name, "count": 4, "hash": file_hash(tmp_path / name)}]
        for split in ("train", "val")
        for name in (f"{split}-00000.npy",)
    }
    write_manifest(tmp_path, params, "", shards, 4)
    assert TokenCache(tmp_path, "val").labels.tolist() == [0, 1, 2, 3]
    (tmp_path / SUMS).unlink()
    with pytest.raises(UserError, match=r"SHA256SUMS has no hash of val-labels.npy; run") as error:
        TokenCache(tmp_path, "val")
    one_line(error)


def test_a_link_to_a_folder_gives_way_to_the_checkpoint_before(tmp_path, capsys):
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path / "run", 3))
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine").touch()
    (tmp_path / "run/checkpoint.pt").unlink()
    (tmp_path / "run/checkpoint.pt").symlink_to(own)
    assert fit(ToyTask(), RunDirSession(tmp_path / "run"))[-1]["step"] == 11
    assert (own / "mine").exists()


@pytest.mark.parametrize("value", [float("nan"), "text", [1], None, torch.ones(2)], ids=str)
def test_a_history_of_no_numbers_is_damage(tmp_path, capsys, value):
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path, 3))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    state["history"][0]["loss"] = value
    torch.save(state, tmp_path / "checkpoint.pt")
    assert RunDirSession(tmp_path).load()["step"] == 6
    assert "it holds no state of a training" in capsys.readouterr().out


def test_a_checkpoint_of_a_shorter_training_is_another_ones(make_params, tmp_path):
    """Its learning rates end with it."""
    short, long = (classifier_task(make_params, steps=steps) for steps in (3, 6))
    fit(short, RunDirSession(tmp_path), steps=3, every=3)
    with pytest.raises(UserError, match=r"rates are of \[3\] steps and not \[6\]") as error:
        fit(long, RunDirSession(tmp_path), steps=6, every=3)
    assert "to train it from the start" in one_line(error)


@pytest.mark.parametrize("what", [*NO_FILES, "bytes"])
def test_a_curve_that_is_none_is_a_line(tmp_path, monkeypatch, params, what):
    monkeypatch.chdir(tmp_path)
    curve = tmp_path / "data/schedules/cosine.csv"
    curve.parent.mkdir(parents=True)
    if what == "bytes":
        curve.write_bytes(b"\xff\xfe")
    else:
        no_file(what, curve)
    with pytest.raises(UserError, match="not what the code says; run `dvc repro schedules`"):
        check_curves(["cosine"], params)


@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_listing_of_rays_is_removed(tmp_path, what):
    no_file(what, tmp_path / LISTING)
    assert unlisted_checkpoint(tmp_path) is None
    assert not os.path.lexists(tmp_path / LISTING)


def test_a_storage_that_is_a_link_to_itself_is_a_line(tmp_path):
    (tmp_path / "runs").symlink_to("runs")
    with pytest.raises(UserError, match="runs is, or lies in, a link to itself; delete it"):
        run_dir("s", {}, str(tmp_path / "runs"))


def test_sync_tells_of_a_ruined_database_that_had_everything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path}/mlflow.db")
    Outbox(tmp_path / "outbox/a").append_open(OPENED | {"uri": uri})
    assert "1 records sent" in sync(tmp_path / "outbox")
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 999)
    with pytest.raises(UserError, match=r"cannot be used: .*is damaged: put a whole copy"):
        sync(tmp_path / "outbox")
    (tmp_path / "mlflow.db").unlink()
    assert "1 records sent" in sync(tmp_path / "outbox")


@pytest.mark.parametrize("what", NO_FILES)
def test_a_folder_takes_the_place_of_what_is_none(tmp_path, what):
    no_file(what, tmp_path / "model")
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "weights").touch()
    assert os.listdir(tmp_path / "model") == ["weights"]
