"""Checkpoints: written while training continues, whole or not at all; the one before the newest is
used when the newest is damaged."""

import errno
import os
import time
from pathlib import Path

import pytest
import torch

from pipeline.runtime.errors import UserError
from pipeline.training.loop import RunDirCheckpoints, checkpoints, load_checkpoint, save_checkpoint
from pipeline.training.loop.checkpoints import snapshot
from tests.damage import cut, empty, failing, named, zero
from tests.interruption import Killed, KilledAfter, fit, weight_bytes
from tests.training.test_loop import ToyTask


@pytest.fixture
def killed(tmp_path) -> Path:
    """A training killed after its second checkpoint."""
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path / "killed", 2))
    return tmp_path / "killed"


@pytest.mark.parametrize("damage", [cut, zero, empty], **named)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(killed, tmp_path, capsys, damage):
    straight, resumed = ToyTask(), ToyTask()
    history = fit(straight, RunDirCheckpoints(tmp_path / "straight"))
    damage(killed / "checkpoint.pt")
    assert fit(resumed, RunDirCheckpoints(killed)) == history
    assert "is removed" in capsys.readouterr().out
    assert resumed.steps_taken == list(range(3, 11))
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)


def test_if_the_only_checkpoint_is_damaged_training_starts_again(tmp_path):
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path, 1))
    cut(tmp_path / "checkpoint.pt")
    assert [row["step"] for row in fit(ToyTask(), RunDirCheckpoints(tmp_path))] == [3, 6, 9, 11]


def test_a_kill_between_the_two_renames_loses_nothing(killed):
    os.replace(killed / "checkpoint.pt", killed / "checkpoint.before.pt")
    task = ToyTask()
    fit(task, RunDirCheckpoints(killed))
    assert task.steps_taken[0] == 6


@pytest.mark.parametrize("error", [OSError(errno.ESTALE, "Stale file handle"), MemoryError()])
def test_a_checkpoint_that_cannot_be_read_now_stays(killed, monkeypatch, error):
    before = {path: path.read_bytes() for path in killed.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", failing(torch.load, error))
        with pytest.raises(UserError, match="cannot be read now"):
            RunDirCheckpoints(killed).load()
    assert {path: path.read_bytes() for path in killed.iterdir()} == before
    assert RunDirCheckpoints(killed).load()["step"] == 6


def test_a_checkpoint_of_another_run_is_refused(killed):
    path = killed / "checkpoint.pt"
    save_checkpoint(load_checkpoint(path) | {"run": "sweep/other"}, path)
    with pytest.raises(UserError, match="is sweep/other's and not"):
        fit(ToyTask(), RunDirCheckpoints(killed))


def test_training_continues_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """Each but the last is written only after the next step; one at a time is in memory."""
    written, write, task = [], checkpoints._write, ToyTask()

    def write_later(state, path):
        deadline = time.monotonic() + 30
        while len(task.steps_taken) <= state["step"] < 11:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        written.append(state["step"])
        write(state, path)

    def snapshot_of(state):
        if isinstance(state, dict) and "run" in state:  # the whole, and not a part of it
            assert len(written) == (state["step"] - 1) // 3  # all that were saved before
        return snapshot(state)

    monkeypatch.setattr(checkpoints, "_write", write_later)
    monkeypatch.setattr(checkpoints, "snapshot", snapshot_of)
    fit(task, RunDirCheckpoints(tmp_path))
    assert written == [3, 6, 9, 11]
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert weight_bytes(state["task"]["model"]) == weight_bytes(task.model)
    assert load_checkpoint(tmp_path / "checkpoint.before.pt")["step"] == 9


@pytest.mark.parametrize("at", [3, 11])
def test_a_full_disk_ends_the_training_in_one_line(tmp_path, monkeypatch, at):
    save = torch.save

    def full(state, file):
        if state["step"] == at:
            Path(file).write_bytes(b"half of it")
            raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos\nmore")
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    task = ToyTask()
    with pytest.raises(UserError, match=r"cannot write .*checkpoint\.pt: no space") as error:
        fit(task, RunDirCheckpoints(tmp_path))
    assert "\n" not in str(error.value)
    assert len(task.steps_taken) == min(at + 3, 11)
    assert at == 3 or load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 9
    assert not list(tmp_path.glob(".*"))


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_runs_no_code(tmp_path):
    made = tmp_path / "made"
    torch.save({"step": Payload(made)}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(tmp_path / "checkpoint.pt")
    assert not made.exists()
