"""What `plan` says of stages that leave devices idle."""

from collections.abc import Callable

import pytest

from pipeline.config.params import Params
from pipeline.tools.plan.report import plan_text
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


def said(params: Params, tflops: float | None = RATE) -> list[str]:
    """The paragraphs about idle devices, each as a line."""
    paragraphs = plan_text(params, DIGITS, tflops).split("\n\n")
    return [" ".join(text.split()) for text in paragraphs if " devices idle: " in text]


@pytest.mark.parametrize("tflops", [RATE, None])
def test_a_large_stage_that_leaves_devices_idle_is_named(twelve, tflops):
    (line,) = said(twelve(), tflops)
    assert line == (  # in three rounds, of 12, 12 and 4
        "sweep leaves 2.67 of 12 devices idle: 3 of its 7 trials of 4 workers fit at once "
        "(sweep.workers_per_trial; docs/scaling.md says where more are slower)."
    )


@pytest.mark.parametrize(("workers", "at_once"), [(1, 6), (5, 2), (7, 1)])
def test_so_are_classifiers_of_cas(twelve, workers, at_once):
    params = twelve(sweep={"workers_per_trial": 12}, cas={"workers_per_classifier": workers})
    (line,) = said(params)
    assert line.startswith("cas leaves ") and f"idle: {at_once} of its 6 classifiers" in line


@pytest.mark.parametrize(
    "changes",
    [
        {"ray": {"num_workers": 4}},  # a trial has them all
        {"training": {"batch_size": 24, "steps": 10**7}},  # the sweep is a small part
        {"sweep": {"workers_per_trial": 12}},
    ],
)
def test_nothing_is_said_where_few_are_idle_or_a_stage_is_small(twelve, changes):
    assert said(twelve(**changes)) == []
