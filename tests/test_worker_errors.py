"""The line that a job leaves where it fails, for whoever started it."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import Failure


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


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_that_is_not_for_the_user_keeps_its_traceback_and_leaves_no_line(failure, error):
    with pytest.raises(error), failure.noted():
        raise error("a bug")
    assert failure.read() is None


def test_it_travels_as_a_plain_value(failure):
    assert failure == Failure(failure.folder) and hash(failure) == hash(Failure(failure.folder))
    with pytest.raises(FrozenInstanceError):
        failure.folder = "elsewhere"


def test_an_error_that_cannot_be_noted_is_raised(tmp_path):
    """As on a full disk: the folder is a file."""
    (tmp_path / "job").write_text("")
    with pytest.raises(UserError, match="the first"), Failure(str(tmp_path / "job")).noted():
        raise UserError("the first")
