"""What `plan` says of stages that leave devices idle."""

import re
from collections.abc import Callable

import pytest

from pipeline.config.params import Params
from pipeline.tools.plan.report import plan_text, plan_values
from tests.planned import DIGITS

RATE = 0.001  # TFLOP/s
# Of 12 devices seven trials of 4 workers leave some idle: they are three at once, in three rounds.
# Six classifiers of 4 workers leave none.
TWELVE = {
    "ray": {"num_workers": 12},
    "training": {"batch_size": 24, "steps": 3000},
    "tokenizer": {"batch_size": 24},
    "classifier": {"batch_size": 420},
    "evaluation": {"seeds": [0]},
    "sweep": {"seeds": [0], "workers_per_trial": 4, "steps": 3000},
    "cas": {"workers_per_classifier": 4},
}


@pytest.fixture
def twelve(make_params) -> Callable[..., Params]:
    """Makes such params, with changes to their sections."""
    return lambda **changes: make_params(
        **changes | {key: own | changes.get(key, {}) for key, own in TWELVE.items()}
    )


def advice(params: Params, tflops: float | None = RATE) -> list[str]:
    """The paragraphs about idle devices, each as a line."""
    paragraphs = plan_text(params, DIGITS, tflops).split("\n\n")
    return [" ".join(text.split()) for text in paragraphs if " devices idle: " in text]


def sweep_of(params: Params) -> dict:
    return next(s for s in plan_values(params, DIGITS, RATE)["stages"] if s["name"] == "sweep")


def test_what_is_said_is_what_the_plan_with_that_value_says(twelve):
    (line,) = advice(twelve())
    pattern = (
        r"sweep leaves (\S+) of 12 devices idle: 3 of its 7 trials of 4 workers fit at once\. "
        r"(With sweep\.workers_per_trial 12 it leaves (\S+)), "
        r"and takes (\d+)% less time, messages and starts of kernels aside\."
    )
    idle, said, left, percent = re.fullmatch(pattern, line).groups()
    other = twelve(sweep={"workers_per_trial": 12})
    now, then = sweep_of(twelve()), sweep_of(other)
    assert idle == f"{12 - now['devices']:.1f}" and 2 < float(idle) < 4
    assert left == f"{12 - then['devices']:.1f}" and float(left) < 2
    assert percent == f"{100 - 100 * then['seconds'] / now['seconds']:.0f}" and int(percent) > 5
    assert advice(other) == []
    (without_times,) = advice(twelve(), tflops=None)
    assert without_times.endswith(f" at once. {said}.")


@pytest.mark.parametrize(("workers", "at_once", "better"), [(1, 6, 2), (5, 2, 6), (7, 1, 12)])
def test_the_value_is_the_next_that_gives_all_devices_a_training(twelve, workers, at_once, better):
    params = twelve(sweep={"workers_per_trial": 12}, cas={"workers_per_classifier": workers})
    (line,) = advice(params)
    assert line.startswith("cas leaves ") and f"idle: {at_once} of its 6 classifiers" in line
    assert f" With cas.workers_per_classifier {better} it leaves " in line


@pytest.mark.parametrize(
    "changes",
    [
        {"ray": {"num_workers": 4}},  # a trial has them all
        {"training": {"batch_size": 24, "steps": 10**7}},  # the sweep is a small part
        {"sweep": {"steps": 1, "iterations": [1]}},  # of which one of a trial's workers does most
        {"transformer": {"pretrained": "release"}},  # nothing is trained
    ],
)
def test_nothing_is_said_where_no_value_makes_a_large_stage_quicker(twelve, changes):
    assert advice(twelve(**changes)) == []
