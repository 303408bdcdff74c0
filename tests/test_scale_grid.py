"""What `scale` may be asked for, without a project."""

import pytest

from pipeline.runtime.errors import UserError
from pipeline.tools.scale import BASELINE, Decoding, Grid, Training
from pipeline.tools.scale.grid import OWN
from tests.errors import one_line
from tests.tiny_project import with_params


def test_grid_without_options_is_the_sweeps_and_the_baseline():
    params = with_params()
    grid = Grid.of(params, {}, None)
    assert grid.networks == [*params.sweep.schedules, BASELINE]
    assert (grid.seeds, grid.steps) == (params.sweep.seeds, [params.sweep.steps])
    assert grid.samples == params.evaluation.samples
    (training, *_), baseline = grid.trainings(), Training(BASELINE, 0.1, 0)
    assert training == Training("exponential", params.training.label_smoothing, 0)
    temperature = params.decoding.choice_temperature
    assert list(grid.decodings(training)) == [Decoding("exponential", 2, temperature)]
    assert list(grid.decodings(baseline)) == [None]
    assert grid.decode_schedules == [OWN]


def test_schedules_are_those_that_are_trained_or_decoded_with():
    options = {"networks": f"linear,{BASELINE}", "decode_schedules": f"{OWN},cosine,linear"}
    assert Grid.of(with_params(), options, 20).schedules == ["cosine", "linear"]
    assert Grid.of(with_params(), {"networks": BASELINE}, 20).schedules == []


@pytest.mark.parametrize(
    ("evaluation", "enough", "said"),
    [
        ({"kid_subset_size": 30}, 30, "fewer than evaluation.kid_subset_size 30; raise it or"),
        ({"neighbors": 30}, 31, "too few for evaluation.neighbors 30 or is_splits 1; use more"),
        ({"is_splits": 30}, 30, "too few for evaluation.neighbors 3 or is_splits 30; use more"),
    ],
)
def test_samples_too_few_for_a_metric_are_refused(evaluation, enough, said):
    params = with_params(evaluation=evaluation, temperature={"samples": 99}, editing={"images": 99})
    assert Grid.of(params, {}, enough).samples == enough
    with pytest.raises(UserError, match=f"^--samples: {enough - 1} are {said}") as error:
        Grid.of(params, {}, enough - 1)
    one_line(error)


@pytest.mark.parametrize("pretrained", [None, "weights.msgpack"])
def test_guidance_of_networks_that_always_saw_the_class_is_refused(pretrained):
    """Networks are trained here, whatever the stages take."""
    guided = {"decoding": {"guidance_scale": 2.0, "iterations": 3}}
    dropped = with_params(**guided, training={"label_drop": 0.1})
    always = dropped.model_copy(
        update={
            "training": dropped.training.model_copy(update={"label_drop": 0.0}),
            "transformer": dropped.transformer.model_copy(update={"pretrained": pretrained}),
        }
    )
    assert Grid.of(dropped, {}, None).networks
    assert Grid.of(always, {"networks": BASELINE}, None).networks == [BASELINE]
    with pytest.raises(
        UserError, match=r"^decoding\.guidance_scale: .* training\.label_drop"
    ) as error:
        Grid.of(always, {"networks": f"cosine,{BASELINE}"}, None)
    one_line(error)
