"""The training loop and its checkpoints: a killed and resumed run gives the same bytes."""

import errno
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from pipeline.data.ranks import Ranks
from pipeline.runtime.errors import UserError
from pipeline.training.loop.checkpoints import RunDirCheckpoints, load_checkpoint
from pipeline.training.loop.divergence import Diverged
from pipeline.training.loop.training import Task
from tests.interruption import Killed, KilledAfter, cut, fit, weight_bytes


class ToyTask(Task):
    """A linear fit with momentum, and noise from the global generator as in dropout."""

    saved = ("model", "optimizer")

    def __init__(self, nan_loss_at: int = -1, nan_weights_at: int = -1):
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.nan_loss_at, self.nan_weights_at = nan_loss_at, nan_weights_at
        self.steps_taken, self.drawn = [], []

    def step(self, step: int) -> dict[str, torch.Tensor]:
        self.steps_taken.append(step)
        noise = torch.randn(4, 3)
        self.drawn.append(noise[0, 0].item())
        loss = (self.model(noise) - 1).pow(2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if step == self.nan_weights_at:
            with torch.no_grad():
                self.model.weight.fill_(torch.nan)
        return {"loss": loss * (torch.nan if step == self.nan_loss_at else 1)}

    def evaluate(self, step: int) -> dict[str, float]:
        return {"norm": self.model.weight.norm().item(), "drawn": torch.rand(()).item()}


class Counting(ToyTask):
    """One loss is the step's number; another starts late and is missing in some steps."""

    def step(self, step):
        late = {"late": torch.tensor(float(step))} if step in (4, 6, 7) else {}
        return {"loss": torch.tensor(float(step))} | late


@dataclass(frozen=True)
class OneOfTwo(Ranks):
    """One of two workers; the other one has the loss `other` in every step."""

    rank: int = 0
    workers: int = 2
    other: float | None = None  # this one's

    def total(self, values: torch.Tensor) -> torch.Tensor:
        return values + (values if self.other is None else self.other)


@pytest.mark.parametrize("saves", [1, 2, 4])
def test_interrupted_training_ends_with_the_same_bytes(tmp_path, saves):
    straight, resumed, rows = ToyTask(), ToyTask(), []
    history = fit(straight, RunDirCheckpoints(tmp_path / "straight"))
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path / "killed", saves))
    log = SimpleNamespace(log_training=rows.append)
    assert fit(resumed, RunDirCheckpoints(tmp_path / "killed"), log=log) == history
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)
    assert rows == history[saves:]
    assert resumed.steps_taken == list(range(min(3 * saves, 11), 11))  # none if it had ended


@pytest.mark.parametrize("other", [None, 9.0])
def test_history_averages_each_loss_over_the_steps_that_have_it_and_the_workers(tmp_path, other):
    ranks = Ranks() if other is None else OneOfTwo(other=other)
    history = fit(Counting(), RunDirCheckpoints(tmp_path), 8, 3, ranks)
    alone = {"loss": [1.0, 4.0, 6.5], "late": [None, 4.0, 6.5]}
    for name, values in alone.items():
        wanted = [x if x is None or other is None else (x + other) / 2 for x in values]
        assert [row.get(name) for row in history] == wanted
    assert [row["step"] for row in history] == [3, 6, 8]
    assert load_checkpoint(tmp_path / "checkpoint.pt")["history"] == history


def test_every_step_and_worker_has_its_own_noise(tmp_path):
    first, second = ToyTask(), ToyTask()
    fit(first, RunDirCheckpoints(tmp_path / "a"))
    fit(second, RunDirCheckpoints(tmp_path / "b"), ranks=OneOfTwo(1))
    assert len({*first.drawn, *second.drawn}) == 22


@pytest.mark.parametrize(
    ("bad_step", "stops_at", "every"), [(4, 6, 3), (5, 6, 3), (9, 10, 3), (12, 20, 25)]
)
def test_a_nan_loss_is_an_error_that_names_its_step(tmp_path, bad_step, stops_at, every):
    """The error comes at the next checkpoint or tenth step. The last checkpoint stays."""
    task = ToyTask(nan_loss_at=bad_step)
    with pytest.raises(Diverged, match=f"loss of step {bad_step + 1} is nan") as error:
        fit(task, RunDirCheckpoints(tmp_path), 25, every)
    assert error.value.subject == "toy" and task.steps_taken == list(range(stops_at))
    if last := every * (bad_step // every):
        assert f"step {last} is kept" in error.value.way_out
        state = load_checkpoint(tmp_path / "checkpoint.pt")
        assert state["step"] == last and len(state["history"]) == last / 3
        assert all(v.isfinite().all() for v in state["task"]["model"].values())


def test_weights_that_turn_nan_at_a_checkpoint_do_not_replace_the_good_one(tmp_path):
    """No loss shows the last update before a checkpoint, but the measurements do."""
    with pytest.raises(Diverged, match="norm after step 6 is nan"):
        fit(ToyTask(nan_weights_at=5), RunDirCheckpoints(tmp_path))
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3


@pytest.mark.parametrize(("mine", "other"), [(-1, math.nan), (-1, math.inf), (0, 0.0)])
def test_workers_end_together_when_the_loss_of_any_is_not_finite(tmp_path, mine, other):
    with pytest.raises(Diverged, match="loss of step 1 is"):
        fit(ToyTask(nan_loss_at=mine), RunDirCheckpoints(tmp_path), ranks=OneOfTwo(other=other))


@pytest.fixture
def killed(tmp_path) -> Path:
    """Train until a kill after the second checkpoint, at step 6."""
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path / "killed", 2))
    return tmp_path / "killed"


def test_a_damaged_checkpoint_falls_back_to_the_one_before_or_the_start(killed, tmp_path, capsys):
    straight, resumed, anew = ToyTask(), ToyTask(), ToyTask()
    history = fit(straight, RunDirCheckpoints(tmp_path / "straight"))
    cut(killed / "checkpoint.pt")
    assert fit(resumed, RunDirCheckpoints(killed)) == history
    assert "file deleted" in capsys.readouterr().out
    assert resumed.steps_taken == list(range(3, 11))
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)
    for path in killed.iterdir():
        cut(path)
    assert fit(anew, RunDirCheckpoints(killed)) == history and anew.steps_taken[0] == 0


def test_a_kill_between_the_two_renames_loses_nothing(killed):
    os.replace(killed / "checkpoint.pt", killed / "checkpoint.before.pt")
    task = ToyTask()
    fit(task, RunDirCheckpoints(killed))
    assert task.steps_taken[0] == 6


@pytest.mark.parametrize("error", [OSError(errno.ESTALE, "Stale file handle"), MemoryError()])
def test_a_checkpoint_that_cannot_be_read_now_stays(killed, monkeypatch, error):
    before = {path: path.read_bytes() for path in killed.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", Mock(side_effect=error))
        with pytest.raises(UserError, match="cannot be read now"):
            RunDirCheckpoints(killed).load()
    assert {path: path.read_bytes() for path in killed.iterdir()} == before
    assert RunDirCheckpoints(killed).load()["step"] == 6


def test_training_continues_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """Each checkpoint but the last is written after the next step."""
    written, save, task = [], torch.save, ToyTask()

    def save_later(state, path):
        deadline = time.monotonic() + 30
        while len(task.steps_taken) <= state["step"] < 11:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        written.append(state["step"])
        save(state, path)

    monkeypatch.setattr(torch, "save", save_later)
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
    with pytest.raises(UserError, match=r"cannot write .*checkpoint\.pt: disk full"):
        fit(task, RunDirCheckpoints(tmp_path))
    assert len(task.steps_taken) == min(at + 3, 11)
    assert at == 3 or load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 9
    assert not list(tmp_path.glob(".*"))


def test_a_checkpoint_runs_no_code(tmp_path):
    """A checkpoint may hold PyTorch's classes only."""
    torch.save({"step": SimpleNamespace()}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(tmp_path / "checkpoint.pt")
