"""Ray Tune trials: their values, their failures, and the machines on which they ran."""

import os
import platform
import signal
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.runtime import trials
from pipeline.runtime.errors import PassingError, UserError
from pipeline.runtime.failures import bug, innermost
from tests.errors import refused

A, B = {"host": "a", "device": "cpu"}, {"host": "b", "device": "NVIDIA H100"}


@dataclass(frozen=True)
class Job:
    """A job whose name says what the job does. Each attempt creates a file in `folder`."""

    name: str
    folder: Path
    folders: tuple[Path, ...] = ()


def attempts(job: Job) -> int:
    return len(list(job.folder.glob(f"{job.name}-*")))


def work(job: Job) -> dict[str, object]:
    (job.folder / f"{job.name}-{attempts(job)}").touch()
    if job.name == "refuses":
        raise UserError("lr", "it is too high", "lower it")
    if job.name == "passes" and attempts(job) == 1:
        raise PassingError("the file cannot be read now; run again")
    if (job.name == "lost once" and attempts(job) == 1) or job.name == "lost":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.name == "bug":
        len(3)  # type: ignore[arg-type]
    return {"name": job.name, "none": None}


class Ran:
    """Runs trials, and collects their values."""

    def __init__(self, folder: Path):
        self.folder, self.values = folder, dict[str, object]()

    def __call__(self, *names: str) -> dict[str, object]:
        needs = trials.Needs(1, {"CPU": 1}, max_failures=1, folder=self.folder)
        jobs = [Job(name, self.folder) for name in names]
        trials.run_trials(work, jobs, needs, stage="sweep", on_done=self.done)
        return self.values

    def done(self, job: Job, value: object) -> None:
        assert job.name not in self.values
        self.values[job.name] = value
        if job.name == "unlogged":
            raise UserError("no space for the log")

    def attempts(self, name: str) -> int:
        return attempts(Job(name, self.folder))


@pytest.fixture
def run(tmp_path, monkeypatch) -> Ran:
    monkeypatch.setattr(trials, "_machines", [])
    return Ran(tmp_path)


@pytest.mark.slow
def test_trials_return_values_though_a_worker_is_lost_or_a_file_cannot_be_read(ray, run):
    names = ("plain", "lost once", "passes")
    assert run(*names) == {name: {"name": name, "none": None} for name in names}
    assert [run.attempts(name) for name in names] == [1, 2, 2]
    (machine,) = trials.machines()
    assert machine["host"] == platform.node()
    assert not (run.folder / "tune").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason", "attempts"),
    [
        ("refuses", "lr: it is too high; lower it", 1),
        ("lost", "a worker was lost", 2),
        ("unlogged", "no space for the log", 1),
    ],
)
def test_a_trial_that_fails_is_one_line_and_the_others_end(ray, run, name, reason, attempts):
    with refused(f"sweep: trial {name} failed", reason, "kept"):
        run(name, "plain", "more")
    assert run.attempts(name) == attempts
    assert run.values.keys() - {name} == {"plain", "more"}


@pytest.mark.slow
def test_a_bug_is_raised_with_its_traceback(ray, run, tmp_path, monkeypatch):
    with pytest.raises(TypeError) as error:
        run("bug")
    assert isinstance(innermost(error.value), TypeError)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    line = bug(error.value, "sweep")
    assert line.startswith("TypeError: object of type 'int' has no len() (unexpected: traceback in")
    assert "len(3)" in Path(line.rpartition(" ")[2].rstrip(")")).read_text()


def refuse() -> None:
    raise UserError("lr", "it is too high", "lower it")


def on_machine() -> int:
    trials.note_machines([A])
    return os.getpid()


@pytest.mark.slow
def test_a_job_beside_a_trial_returns_its_value_its_machines_or_its_error(ray, run):
    assert trials.run_beside(on_machine, resources={"CPU": 1}) != os.getpid()
    assert trials.machines() == [A]
    with refused("lr", way_out="lower it"):
        trials.run_beside(refuse, resources={"CPU": 1})


def test_a_trial_that_did_not_end_is_an_error(run, monkeypatch):
    """Without an error, Ray Tune may return before all trials have ended, as after Ctrl-C."""
    monkeypatch.setattr(trials, "_tuner", lambda *given: SimpleNamespace(fit=lambda: None))
    with pytest.raises(UserError, match="trial plain failed: the trial did not end"):
        run("plain")


def test_the_machines_of_the_workers_or_this_one(run):
    assert trials.machines() == [trials.this_machine()]
    found = trials.this_machine()
    assert found["host"] == platform.node() and found["torch"] == torch.__version__
    trials.note_machines([B, A, A])
    trials.note_machines([A])
    assert trials.machines() == [A, B]
