"""A damaged checkpoint gives way to the one before; what is half written is swept."""

import errno
import os
import zipfile
from pathlib import Path

import pytest
import torch

from pipeline.runtime.errors import UserError
from pipeline.tools.scale.training import CheckpointEachCount
from pipeline.training.loop import RunDirSession, load_checkpoint, newest_whole, save_checkpoint
from tests.damage import cut, empty, failing, flip_weight, named, zero
from tests.errors import one_line
from tests.interruption import Killed, KilledAfter, fit, weight_bytes
from tests.test_loop import ToyTask
from tests.test_train_classifier import classifier_task


@pytest.mark.parametrize("damage", [cut, flip_weight, zero, empty], **named)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, capsys, damage):
    straight = ToyTask()
    history = fit(straight, RunDirSession(tmp_path / "straight"))
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path / "killed", 3))
    damage(tmp_path / "killed/checkpoint.pt")
    capsys.readouterr()
    resumed = ToyTask()
    assert fit(resumed, RunDirSession(tmp_path / "killed")) == history
    said = capsys.readouterr().out
    assert "checkpoint.pt is damaged" in said and "the checkpoint before, of step 6" in said
    assert resumed.steps_taken == list(range(6, 11))
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)
    for name in (
        "checkpoint.pt",
        "checkpoint.before.pt",
    ):  # the damaged one has gone
        load_checkpoint(tmp_path / "killed" / name)


@pytest.mark.parametrize("damage", [cut, flip_weight, zero, empty], **named)
def test_where_the_first_one_is_damaged_training_begins_anew(tmp_path, capsys, damage):
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path, 1))
    assert not (tmp_path / "checkpoint.before.pt").exists()
    damage(tmp_path / "checkpoint.pt")
    task, straight = ToyTask(), ToyTask()
    history = fit(task, RunDirSession(tmp_path))
    assert history == fit(straight, RunDirSession(tmp_path / "straight"))
    assert weight_bytes(task.model) == weight_bytes(straight.model)
    assert "it was the first: training begins anew" in capsys.readouterr().out


def test_the_last_one_that_is_left_is_not_the_first(tmp_path):
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path, 2))
    cut(tmp_path / "checkpoint.pt")
    assert RunDirSession(tmp_path).load()["step"] == 3
    cut(tmp_path / "checkpoint.before.pt")
    with pytest.raises(UserError, match="every checkpoint in"):
        RunDirSession(tmp_path).load()


def test_two_damaged_checkpoints_are_one_line(tmp_path, capsys):
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path, 2))
    for name in ("checkpoint.pt", "checkpoint.before.pt"):
        flip_weight(tmp_path / name)
    with pytest.raises(UserError, match=r"every checkpoint .* is damaged; delete") as error:
        fit(ToyTask(), RunDirSession(tmp_path))
    one_line(error)


@pytest.mark.parametrize("saves", [1, 2])
def test_a_kill_between_the_two_renames_loses_nothing(tmp_path, monkeypatch, saves):
    """The newest has become the one before, and its place is empty."""
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path, saves))
    os.replace(tmp_path / "checkpoint.pt", tmp_path / "checkpoint.before.pt")
    task = ToyTask()
    fit(task, RunDirSession(tmp_path))
    assert task.steps_taken[0] == 3 * saves


@pytest.mark.parametrize("state", [{"step": 3}, [1, 2], {"task": 1, "step": 1}])
def test_a_checkpoint_of_something_else_is_damaged(tmp_path, state, capsys):
    save_checkpoint(state, tmp_path / "a.pt")
    with pytest.raises(UserError, match="every checkpoint"):
        newest_whole([tmp_path / "a.pt"])
    assert "holds no state of a training" in capsys.readouterr().out


def test_a_checkpoint_of_another_network_is_one_line(tmp_path):
    task = ToyTask()
    fit(task, RunDirSession(tmp_path))
    other = ToyTask()
    other.model = torch.nn.Linear(5, 5)
    with pytest.raises(UserError, match=r"its checkpoint is another run's.*delete") as error:
        fit(other, RunDirSession(tmp_path))
    one_line(error)
    way_out = f"delete {tmp_path}/checkpoint.pt to go on from the one before, or delete {tmp_path} "
    assert way_out in str(error.value)
    (tmp_path / "checkpoint.pt").unlink()  # and the one before is the other network's, too
    with pytest.raises(UserError, match=f"; delete {tmp_path} to train it from the start"):
        fit(other, RunDirSession(tmp_path))


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    """As where a person copies one: the network is as large, and its step as far."""
    for name in ("one", "other"):
        fit(ToyTask(), RunDirSession(tmp_path / name))
    path = tmp_path / "one/checkpoint.pt"
    state = load_checkpoint(tmp_path / "other/checkpoint.pt")
    save_checkpoint(state | {"run": "sweep/other"}, path)
    with pytest.raises(UserError, match=r"another run's.* is sweep/other's and not toy's") as error:
        fit(ToyTask(), RunDirSession(tmp_path / "one"))
    one_line(error)
    path.unlink()
    assert [row["step"] for row in fit(ToyTask(), RunDirSession(tmp_path / "one"))] == [3, 6, 9, 11]


def test_of_a_checkpoint_for_each_step_count_the_one_before_is_as_good(tmp_path, capsys):
    """As `maskgit scale` keeps them."""
    straight = fit(ToyTask(), CheckpointEachCount(tmp_path, 9), steps=9)
    cut(tmp_path / "step000000009.pt")
    task = ToyTask()
    assert fit(task, CheckpointEachCount(tmp_path, 9), steps=9) == straight
    assert task.steps_taken == [6, 7, 8]
    assert "step000000009.pt is damaged" in capsys.readouterr().out
    for path in tmp_path.iterdir():
        cut(path)
    with pytest.raises(UserError, match="delete that folder to train from the start") as error:
        fit(ToyTask(), CheckpointEachCount(tmp_path, 9), steps=9)
    one_line(error)


def _optimizer_of_other_shapes(state: dict) -> None:
    for values in state["task"]["optimizer"]["state"].values():
        values["momentum_buffer"] = torch.zeros(7)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(step="3"),
        lambda state: state.update(step=7.5),
        lambda state: state.update(step=True),
        lambda state: state.update(step=10**9),
        lambda state: state.update(step=0, history=[{"step": 0}]),
        lambda state: state.update(step=2),  # not that of the history's last row
        lambda state: state.update(history=[1, 2, 3]),
        lambda state: state.update(history=[{"loss": 1.0}]),
        lambda state: state.update(history=state["history"] * 2),
        lambda state: state.update(step=12, history=[{"step": 12}]),  # of 11
        lambda state: state["task"]["model"]["weight"].fill_(torch.nan),
        _optimizer_of_other_shapes,
    ],
)
def test_a_whole_checkpoint_of_a_state_that_cannot_be_is_one_line_with_the_way_out(
    tmp_path, change, capsys
):
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path, 1))
    path = tmp_path / "checkpoint.pt"
    state = load_checkpoint(path)
    change(state)
    save_checkpoint(state, path)
    task = ToyTask()
    try:
        fit(task, RunDirSession(tmp_path))
    except UserError as error:
        assert "delete" in str(error) and "\n" not in str(error)
        assert task.steps_taken == []
    else:  # the first one: training began anew, and said so
        assert "training begins anew" in capsys.readouterr().out
        assert task.steps_taken == list(range(11))


def test_a_schedule_of_another_step_is_refused(make_params, tmp_path):
    def task():
        return classifier_task(make_params, steps=11)

    with pytest.raises(Killed):
        fit(task(), KilledAfter(tmp_path, 1))
    path = tmp_path / "checkpoint.pt"
    state = load_checkpoint(path)
    state |= {"step": 2, "history": [{"step": 2}]}
    save_checkpoint(state, path)
    with pytest.raises(
        UserError, match=r"its schedule is of step 3, and it of 2.*delete .*to train it"
    ):
        fit(task(), RunDirSession(tmp_path))


NOT_NOW = {
    "stale": ((os, "stat"), OSError(errno.ESTALE, "Stale file handle")),
    "gone": ((Path, "lstat"), OSError(errno.ESTALE, "Stale file handle")),
    "too many": ((zipfile, "ZipFile"), OSError(errno.EMFILE, "Too many open files")),
    "memory": ((torch, "load"), MemoryError()),
    "tensor": ((torch, "load"), RuntimeError("CPUAllocator: can't allocate memory: you tried")),
}


@pytest.mark.parametrize(("where", "error"), NOT_NOW.values(), ids=NOT_NOW)
def test_a_checkpoint_that_cannot_be_read_now_stays(tmp_path, monkeypatch, where, error):
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path, 2))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    with monkeypatch.context() as patch:
        patch.setattr(*where, failing(getattr(*where), error))
        with pytest.raises(UserError, match=r"\.pt: cannot be read now .*; run") as said:
            RunDirSession(tmp_path).load()
    one_line(said)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert RunDirSession(tmp_path).load()["step"] == 6


def test_a_device_without_memory_is_no_damage(tmp_path):
    class Full(ToyTask):
        def load_state_dict(self, state):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.20 GiB.")

    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path, 2))
    with pytest.raises(torch.OutOfMemoryError):
        fit(Full(), RunDirSession(tmp_path))
