"""The loop: a killed run ends with the bytes of one that was not."""

import math
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.runtime.errors import UserError
from pipeline.training.loop import (
    Diverged,
    RunDirSession,
    checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from pipeline.training.loop.finite import DivergedElsewhere
from tests.interruption import Killed, KilledAfter, fit, weight_bytes


class ToyTask:
    """A linear fit with momentum and noise from the global generator, as dropout's."""

    def __init__(self, nan_loss_at: int = -1, nan_weights_at: int = -1):
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.nan_loss_at, self.nan_weights_at = nan_loss_at, nan_weights_at
        self.steps_taken = []

    def step(self, step: int) -> dict[str, torch.Tensor]:
        self.steps_taken.append(step)
        loss = (self.model(torch.randn(4, 3)) - 1).pow(2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if step == self.nan_weights_at:
            with torch.no_grad():
                self.model.weight.fill_(torch.nan)
        return {"loss": loss * (torch.nan if step == self.nan_loss_at else 1)}

    def evaluate(self, step: int) -> dict[str, float]:
        return {"norm": self.model.weight.norm().item(), "drawn": torch.rand(()).item()}

    def state_dict(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


@pytest.mark.parametrize("saves", [1, 2, 3, 4])
def test_interrupted_training_ends_with_the_same_bytes(tmp_path, saves):
    straight = ToyTask()
    history = fit(straight, RunDirSession(tmp_path / "straight"))
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path / "killed", saves))
    rows = []
    resumed = ToyTask()
    again = fit(resumed, RunDirSession(tmp_path / "killed", on_row=rows.append))
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)
    assert again == history
    assert rows == history[saves:]
    assert resumed.steps_taken == list(range(min(3 * saves, 11), 11))


def test_history_averages_the_losses_of_each_interval(tmp_path):
    class Counting(ToyTask):
        def step(self, step):
            return {"loss": torch.tensor(float(step))}

    history = fit(Counting(), RunDirSession(tmp_path), steps=8, every=3)
    assert [(row["step"], row["loss"]) for row in history] == [(3, 1.0), (6, 4.0), (8, 6.5)]


def test_every_step_has_its_own_noise(tmp_path):
    drawn = []

    class Drawing(ToyTask):
        def step(self, step):
            drawn.append(torch.rand(()).item())
            return {"loss": torch.zeros(())}

    fit(Drawing(), RunDirSession(tmp_path / "a"))
    first, drawn[:] = list(drawn), []
    assert len(set(first)) == 11
    session = RunDirSession(tmp_path / "b")
    session.rank = 1
    fit(Drawing(), session)
    assert not set(first) & set(drawn)  # workers draw differently


@pytest.mark.parametrize("bad_step", [4, 5])
def test_nan_loss_stops_at_its_step_and_keeps_the_checkpoint_before(tmp_path, bad_step):
    task = ToyTask(nan_loss_at=bad_step)
    words = f"toy: loss became nan in step {bad_step + 1}; the checkpoint at step 3 is kept"
    with pytest.raises(UserError, match=words) as error:
        fit(task, RunDirSession(tmp_path))
    assert "\n" not in str(error.value)
    assert task.steps_taken == list(range(bad_step + 1))
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["step"] == 3 and len(state["history"]) == 1
    assert all(v.isfinite().all() for v in state["task"]["model"].values())


def test_weights_that_turn_nan_at_a_checkpoint_do_not_replace_the_good_one(tmp_path):
    """The last update of an interval shows in no loss yet, but in the measurements."""
    with pytest.raises(
        UserError, match="norm is nan after step 6; the checkpoint at step 3"
    ) as error:
        fit(ToyTask(nan_weights_at=5), RunDirSession(tmp_path))
    # One worker measures: what all others know too is the loss, and `Diverged` is for that.
    assert not isinstance(error.value, Diverged)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3


class Shared(RunDirSession):
    """One of two workers; the loss of the other is `other` in every step."""

    def __init__(self, folder, other: float):
        super().__init__(folder)
        self.other, self.averaged = other, []

    def average(self, row):
        if row.keys() == {"step"}:  # they go on from the same one
            return row
        self.averaged.append(sorted(row))
        wrong = float(not math.isfinite(self.other))  # what is said of each step but the loss
        return {k: (v + (self.other if k == "loss" else wrong)) / 2 for k, v in row.items()}


def test_history_holds_the_losses_of_all_workers(tmp_path):
    class Counting(ToyTask):
        def step(self, step):
            return {"loss": torch.tensor(float(step))}

    history = fit(Counting(), Shared(tmp_path, other=9.0), steps=6, every=3)
    assert [(row["step"], row["loss"]) for row in history] == [(3, 5.0), (6, 6.5)]
    assert load_checkpoint(tmp_path / "checkpoint.pt")["history"] == history


@pytest.mark.parametrize(
    ("mine", "other", "words"),
    [
        (-1, math.nan, "another worker's loss, in step 1"),
        (1, 0.0, "loss became nan in step 2"),
    ],
)
def test_workers_end_together_when_the_loss_of_any_is_nan(tmp_path, mine, other, words):
    """The one whose own it is tells the others first: they would wait for it."""
    task, session = ToyTask(nan_loss_at=mine), Shared(tmp_path, other)
    with pytest.raises(Diverged, match=words):
        fit(task, session)
    assert session.averaged == [[str(step)] for step in task.steps_taken]


class OnDevice(torch.Tensor):
    """A number that claims to lie on a GPU."""

    device = torch.device("cuda")  # type: ignore[assignment]


def test_losses_on_a_gpu_are_read_every_ten_steps_and_the_step_is_still_named(tmp_path):
    class Gpu(ToyTask):
        def step(self, step):
            loss = super().step(step)["loss"].detach()
            return {"loss": loss.as_subclass(OnDevice), "other": torch.ones(())}

    session = Shared(tmp_path, 0.0)
    fit(Gpu(), session, steps=25, every=25)
    assert [len(keys) for keys in session.averaged] == [10, 10, 5, 2]
    task = Gpu(nan_loss_at=12)
    with pytest.raises(Diverged, match="loss became nan in step 13"):
        fit(task, RunDirSession(tmp_path / "nan"), steps=25, every=25)
    assert task.steps_taken == list(range(20))


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
    torch.load(tmp_path / "checkpoint.pt", weights_only=False)
    assert made.exists()  # it would have


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint({"step": 1}, path)

    def full(state, file):
        Path(file).write_bytes(b"half of it")
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos\nmore")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"cannot write .*checkpoint\.pt: no space") as error:
        save_checkpoint({"step": 2}, path)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert load_checkpoint(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_one_checkpoint_at_a_time_is_in_memory(tmp_path, monkeypatch):
    """The next one is copied when the one before is on the disk."""
    session, seen = RunDirSession(tmp_path), []

    def copied(state):
        seen.append(session._behind._running)
        return state

    monkeypatch.setattr(checkpoints, "snapshot", copied)
    for step in range(3):
        session.save({"step": step}, {})
    session.settle()
    assert seen == [None] * 3


def test_finished_run_is_not_trained_again(tmp_path):
    history = fit(ToyTask(), RunDirSession(tmp_path))
    task = ToyTask()
    assert fit(task, RunDirSession(tmp_path)) == history
    assert task.steps_taken == []


def test_a_loss_that_begins_later_is_averaged_over_the_steps_that_have_it(tmp_path):
    class Later(ToyTask):
        def step(self, step):
            loss = {"loss": torch.tensor(1.0)}
            return loss | ({"late": torch.tensor(float(step))} if step in (4, 6, 7) else {})

    history = fit(Later(), RunDirSession(tmp_path), steps=8, every=3)
    assert [row.get("late") for row in history] == [None, 4.0, 6.5]


class TwoWorkers(RunDirSession):
    """One of two workers; what differs of the other's numbers is given."""

    def __init__(self, folder: Path, **others: float):
        super().__init__(folder)
        self.others = others

    def average(self, row):
        return {key: (value + self.others.get(key, value)) / 2 for key, value in row.items()}


def test_workers_that_would_go_on_from_different_steps_end(tmp_path):
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path, 2))
    session = TwoWorkers(tmp_path, step=3.0)
    task = ToyTask()
    with pytest.raises(UserError, match="toy: its workers do not find the same checkpoint in"):
        fit(task, session)
    assert not task.steps_taken


def test_a_worker_whose_losses_are_fine_leaves_the_word_to_the_other(tmp_path):
    session = TwoWorkers(tmp_path, **{"4": 1.0})  # its loss of step 4 is not finite
    with pytest.raises(DivergedElsewhere):
        fit(ToyTask(), session)
    with pytest.raises(Diverged) as error:
        fit(ToyTask(nan_loss_at=4), TwoWorkers(tmp_path / "other"))
    assert not isinstance(error.value, DivergedElsewhere)
