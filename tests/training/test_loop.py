"""The loop: a killed run ends with the bytes of one that was not."""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline.data.ranks import Ranks
from pipeline.runtime.errors import UserError
from pipeline.training.loop import Diverged, RunDirCheckpoints, Task, load_checkpoint
from tests.interruption import Killed, KilledAfter, fit, weight_bytes


class ToyTask(Task):
    """A linear fit with momentum and noise from the global generator, as dropout's."""

    saved = ("model", "optimizer")

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


@dataclass(frozen=True)
class OneOfTwo(Ranks):
    """One of two workers: the other has the loss `other` in every step, and resumes at `step`."""

    rank: int = 0
    workers: int = 2
    other: float | None = None  # this one's
    step: int | None = None  # this one's
    calls: list = field(default_factory=list)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        self.calls.append(values)
        other = self.step if len(self.calls) == 1 else self.other
        return values + (values if other is None else other)


@pytest.mark.parametrize("saves", [1, 2, 3, 4])
def test_interrupted_training_ends_with_the_same_bytes(tmp_path, saves):
    straight = ToyTask()
    history = fit(straight, RunDirCheckpoints(tmp_path / "straight"))
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path / "killed", saves))
    rows, resumed = [], ToyTask()
    log = SimpleNamespace(log_training=rows.append)
    again = fit(resumed, RunDirCheckpoints(tmp_path / "killed"), log=log)
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)
    assert again == history
    assert rows == history[saves:]
    assert resumed.steps_taken == list(range(min(3 * saves, 11), 11))


def test_history_averages_the_losses_of_each_interval(tmp_path):
    class Counting(ToyTask):
        def step(self, step):
            return {"loss": torch.tensor(float(step))}

    history = fit(Counting(), RunDirCheckpoints(tmp_path), steps=8, every=3)
    assert [(row["step"], row["loss"]) for row in history] == [(3, 1.0), (6, 4.0), (8, 6.5)]


def test_every_step_has_its_own_noise(tmp_path):
    drawn = []

    class Drawing(ToyTask):
        def step(self, step):
            drawn.append(torch.rand(()).item())
            return {"loss": torch.zeros(())}

    fit(Drawing(), RunDirCheckpoints(tmp_path / "a"))
    first, drawn[:] = list(drawn), []
    assert len(set(first)) == 11
    fit(Drawing(), RunDirCheckpoints(tmp_path / "b"), ranks=OneOfTwo(1))
    assert not set(first) & set(drawn)  # workers draw differently


@pytest.mark.parametrize(("bad_step", "stops_at"), [(4, 6), (5, 6), (9, 10)])
def test_a_nan_loss_is_an_error_that_names_its_step(tmp_path, bad_step, stops_at):
    """At the next checkpoint or tenth step; the checkpoint before stays."""
    task = ToyTask(nan_loss_at=bad_step)
    with pytest.raises(Diverged, match=f"loss of step {bad_step + 1} is nan") as error:
        fit(task, RunDirCheckpoints(tmp_path))
    last = 3 * (bad_step // 3)
    assert error.value.subject == "toy" and f"step {last} stays" in error.value.way_out
    assert task.steps_taken == list(range(stops_at))
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["step"] == last and len(state["history"]) == last / 3
    assert all(v.isfinite().all() for v in state["task"]["model"].values())


def test_losses_are_checked_every_ten_steps(tmp_path):
    task = ToyTask(nan_loss_at=12)
    with pytest.raises(Diverged, match="loss of step 13 is nan"):
        fit(task, RunDirCheckpoints(tmp_path), steps=25, every=25)
    assert task.steps_taken == list(range(20))


def test_weights_that_turn_nan_at_a_checkpoint_do_not_replace_the_good_one(tmp_path):
    """The last update of an interval shows in no loss yet, but in the measurements."""
    with pytest.raises(Diverged, match="norm after step 6 is nan"):
        fit(ToyTask(nan_weights_at=5), RunDirCheckpoints(tmp_path))
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3


def test_history_holds_the_losses_of_all_workers(tmp_path):
    class Counting(ToyTask):
        def step(self, step):
            return {"loss": torch.tensor(float(step))}

    history = fit(Counting(), RunDirCheckpoints(tmp_path), 6, 3, OneOfTwo(other=9.0))
    assert [(row["step"], row["loss"]) for row in history] == [(3, 5.0), (6, 6.5)]
    assert load_checkpoint(tmp_path / "checkpoint.pt")["history"] == history


@pytest.mark.parametrize(("mine", "other"), [(-1, math.nan), (-1, math.inf), (0, 0.0)])
def test_workers_end_together_when_the_loss_of_any_is_not_finite(tmp_path, mine, other):
    with pytest.raises(Diverged, match="loss of step 1 is"):
        fit(ToyTask(nan_loss_at=mine), RunDirCheckpoints(tmp_path), ranks=OneOfTwo(other=other))


def test_workers_that_would_resume_from_different_steps_end(tmp_path):
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path, 2))
    task = ToyTask()
    with pytest.raises(UserError, match="do not find the same checkpoint"):
        fit(task, RunDirCheckpoints(tmp_path), ranks=OneOfTwo(step=3))
    assert not task.steps_taken


def test_finished_run_is_not_trained_again(tmp_path):
    history = fit(ToyTask(), RunDirCheckpoints(tmp_path))
    task = ToyTask()
    assert fit(task, RunDirCheckpoints(tmp_path)) == history
    assert task.steps_taken == []


def test_a_loss_that_begins_later_is_averaged_over_the_steps_that_have_it(tmp_path):
    class Later(ToyTask):
        def step(self, step):
            loss = {"loss": torch.tensor(1.0)}
            return loss | ({"late": torch.tensor(float(step))} if step in (4, 6, 7) else {})

    history = fit(Later(), RunDirCheckpoints(tmp_path), steps=8, every=3)
    assert [row.get("late") for row in history] == [None, 4.0, 6.5]
