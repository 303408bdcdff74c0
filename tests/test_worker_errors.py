"""The line that a job leaves where it fails, for whoever started it."""

from dataclasses import FrozenInstanceError
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace

import pytest

from pipeline.runtime import tuning
from pipeline.runtime.errors import PassingError, UserError
from pipeline.runtime.failures import Failure

CUDA = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 10.00 GiB"


@pytest.fixture
def failure(tmp_path) -> Failure:
    """Of a job whose folder is not there yet."""
    return Failure(str(tmp_path / "runs" / "job"))


def test_a_job_that_ends_well_leaves_no_line(failure):
    with failure.noted():
        pass
    assert failure.read() is None and not Path(failure.folder).exists()


def test_an_error_for_the_user_is_left_as_its_line_and_not_raised(failure):
    with failure.noted():
        raise UserError("training.lr: too high")
    assert failure.read() == "training.lr: too high"
    assert Failure(failure.folder).read() == "training.lr: too high"  # another process reads it


def test_the_line_is_gone_once_it_is_cleared(failure):
    failure.clear()  # there is nothing to clear yet
    with failure.noted():
        raise UserError("one")
    failure.clear()
    assert failure.read() is None


def test_an_error_is_noted_and_passed_on_where_others_wait_for_the_worker(failure):
    class Together(UserError):
        pass

    def alone(error: UserError) -> bool:
        return not isinstance(error, Together)

    with failure.noted(pass_on=alone):
        raise Together("all of us")
    assert failure.read() == "all of us"
    with pytest.raises(UserError, match="only me"), failure.noted(pass_on=alone):
        raise UserError("only me")
    assert failure.read() == "only me"


def test_a_bug_is_raised_and_leaves_a_line_that_names_the_file_with_its_traceback(failure):
    with pytest.raises(TypeError), failure.noted():
        len(3)
    assert failure.read() is None  # another attempt may mend it
    line = failure.reason(lost="its worker was lost")
    file = Path(failure.folder) / "traceback.txt"
    assert line == f"TypeError: object of type 'int' has no len() (traceback in {file})"
    assert "Traceback" in file.read_text() and "len(3)" in file.read_text()
    failure.clear()
    assert failure.reason(lost="its worker was lost") == "its worker was lost"


def test_an_error_for_the_user_comes_before_a_bug(failure):
    with pytest.raises(TypeError), failure.noted():
        len(3)
    with failure.noted():
        raise UserError("training.lr: too high")
    assert failure.reason(lost="") == "training.lr: too high"


def test_an_interruption_leaves_nothing(failure):
    with pytest.raises(KeyboardInterrupt), failure.noted():
        raise KeyboardInterrupt
    assert failure.reason(lost="lost") == "lost" and not Path(failure.folder).exists()


def test_it_travels_as_a_plain_value(failure):
    assert failure == Failure(failure.folder) and hash(failure) == hash(Failure(failure.folder))
    with pytest.raises(FrozenInstanceError):
        failure.folder = "elsewhere"


def test_an_error_that_cannot_be_noted_is_raised(tmp_path):
    """As on a full disk: the folder is a file."""
    (tmp_path / "job").write_text("")
    with pytest.raises(UserError, match="the first"), Failure(str(tmp_path / "job")).noted():
        raise UserError("the first")


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        EOFError("no input"),
        UnpicklingError("pickle data was truncated"),
    ],
)
@pytest.mark.parametrize("left", [None, "cannot write checkpoint.pt: No space left on device"])
def test_a_disk_that_is_full_for_tunes_own_notes_is_one_line(
    tmp_path, failure, monkeypatch, error, left
):
    """Before it began, or as it looks back: the trial's own line comes first."""

    def fit():
        if left:
            with failure.noted():
                raise UserError(left)
        raise error

    trial = SimpleNamespace(name="cosine/seed0", failure=failure, finished=False)
    monkeypatch.setattr(tuning, "_tuner", lambda *args: SimpleNamespace(fit=fit))
    needs = tuning.Needs(workers=1, resources={"CPU": 1}, max_failures=0, folder=tmp_path)
    with pytest.raises(UserError, match="trial cosine/seed0 failed") as said:
        tuning.run_trials(print, [trial], needs, stage="sweep", on_done=print)
    assert (left or str(error)) in str(said.value) and "run again" in str(said.value)
    trial.finished = True  # by then: all that it makes is there, which nobody was told
    done: list[SimpleNamespace] = []
    tuning.run_trials(print, [trial], needs, stage="sweep", on_done=done.append)
    assert done == [trial]


def test_of_the_workers_of_a_job_the_first_says_why(failure):
    def attempt() -> str:
        failure.again()
        for error in (RuntimeError("of mine"), RuntimeError("Connection closed by peer")):
            with pytest.raises(RuntimeError), failure.noted(shared=True):
                raise error
        return failure.reason("its worker was lost")

    assert attempt().startswith("RuntimeError: of mine (traceback in ")
    with pytest.raises(ValueError, match="before"), failure.noted():
        raise ValueError("before")
    assert attempt().startswith("RuntimeError: of mine")


def test_an_error_that_may_pass_is_tried_again(failure):
    with pytest.raises(PassingError), failure.noted():
        raise PassingError("the file cannot be read now; run again")
    assert failure.read() is None
    assert failure.reason("it was lost").startswith("the file cannot be read now; run again (tra")
