"""Checkpoints are written while training goes on: one at a time, of the state as it was."""

import time
from threading import Event

import pytest
import torch

from pipeline.runtime.errors import UserError
from pipeline.training.loop import RunDirSession, load_checkpoint
from pipeline.training.loop import checkpoints as module
from pipeline.training.loop.behind import Behind, snapshot
from tests.interruption import fit, weight_bytes
from tests.test_loop import ToyTask


def test_one_runs_at_a_time_and_the_caller_goes_on():
    behind, go_on, done = Behind(), Event(), []

    def work(number: int) -> None:
        assert go_on.wait(10)
        done.append(number)

    behind(work, 1)
    assert done == []
    go_on.set()
    behind(work, 2)
    assert done[0] == 1
    behind.settle()
    assert done == [1, 2]
    behind.settle()  # nothing runs


def test_an_error_is_raised_once_by_the_next():
    behind = Behind()

    def fail() -> None:
        raise UserError("no room")

    behind(fail)
    with pytest.raises(UserError, match="no room"):
        behind(fail)
    behind.settle()
    behind(fail)
    with pytest.raises(UserError, match="no room"):
        behind.settle()
    behind.settle()


def test_a_snapshot_is_not_changed_by_what_comes_after():
    weights = torch.arange(6.0).view(2, 3)
    state = {"a": [weights, (weights[1], 3)], "b": {1: "text", 2: None}}
    kept = snapshot(state)
    weights.zero_()
    assert torch.equal(kept["a"][0], torch.arange(6.0).view(2, 3))
    assert torch.equal(kept["a"][1][0], torch.tensor([3.0, 4, 5])) and kept["a"][1][1] == 3
    assert kept["b"] == state["b"]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """Each but the last is written only when another step has been made since it was begun."""
    written, write, task = [], module._write, ToyTask()

    def behind_a_step(state, path):
        deadline = time.monotonic() + 30
        while len(task.steps_taken) <= state["step"] < 11:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        written.append(state["step"])
        write(state, path)

    monkeypatch.setattr(module, "_write", behind_a_step)
    fit(task, RunDirSession(tmp_path))
    assert written == [3, 6, 9, 11]
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["step"] == 11
    assert weight_bytes(state["task"]["model"]) == weight_bytes(task.model)
    assert load_checkpoint(tmp_path / "checkpoint.before.pt")["step"] == 9


@pytest.mark.parametrize("at", [3, 11])
def test_a_checkpoint_that_cannot_be_written_ends_the_training(tmp_path, monkeypatch, at):
    write = module._write

    def fail(state, path):
        if state["step"] == at:
            raise OSError("no space")
        write(state, path)

    monkeypatch.setattr(module, "_write", fail)
    task = ToyTask()
    with pytest.raises(UserError, match="cannot write"):
        fit(task, RunDirSession(tmp_path))
    assert len(task.steps_taken) == min(at + 3, 11)
