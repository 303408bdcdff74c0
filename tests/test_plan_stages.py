"""Which stages `plan` counts, and how often each repeats what a step or a pass costs."""

import dataclasses

from pipeline.runtime.files import read_yaml
from pipeline.tools.plan import costs
from pipeline.tools.plan.networks import plan_networks, plan_stages
from pipeline.tools.plan.report import plan_text
from pipeline.weights.configs import tokenizer_config, transformer_config
from tests.planned import DIGITS
from tests.project import ROOT


def test_sweep_is_trials_times_steps_and_the_decode_grid(make_params):
    def sweep(**changes) -> int:
        params = make_params(sweep={"schedules": ["cosine"], "seeds": [0]} | changes)
        return next(
            s.flops
            for s in plan_stages(params, DIGITS, plan_networks(params, DIGITS))
            if s.name == "sweep"
        )

    one = sweep(steps=10, samples=100, iterations=[2, 8])
    assert sweep(steps=10, samples=100, iterations=[2, 8], seeds=[0, 1, 2]) == 3 * one
    assert sweep(steps=20, samples=200, iterations=[2, 8]) == 2 * one
    params = make_params()
    config = transformer_config(params, 10)
    _, decode = costs.tokenizer_coding(tokenizer_config(params), 7, 1)
    more = sweep(steps=10, samples=100, iterations=[2, 8, 5]) - one
    assert more == 100 * (5 * costs.decoding_pass(config, 1) + decode)


def test_released_weights_are_not_trained(make_params):
    params = make_params(tokenizer={"pretrained": "a"}, transformer={"pretrained": "b"})
    networks = plan_networks(params, DIGITS)
    assert [n.name for n in networks] == [
        "tokenizer",
        "transformer",
        "autoregressive",
        "classifier",
    ]
    stages = {s.name: s.flops for s in plan_stages(params, DIGITS, networks)}
    assert stages["train_tokenizer"] == stages["train_transformer"] == 0
    trained = {s.name: s.flops for s in plan_stages(make_params(), DIGITS, networks)}
    assert 0 < stages["sweep"] < trained["sweep"]
    assert plan_text(params, DIGITS).count("ready-made") == 2


def test_stages_are_those_of_the_dag_but_those_that_the_text_names(make_params):
    params = make_params()
    planned = {s.name for s in plan_stages(params, DIGITS, plan_networks(params, DIGITS))}
    dag = read_yaml(ROOT / "dvc.yaml")["stages"]
    assert planned < set(dag)
    named = plan_text(params, DIGITS).split("and the stages ")[1].split(". Memory")[0]
    assert named.split(", ") == [name for name in dag if name not in planned]


def test_edits_are_of_the_held_out_images_that_there_are(make_params):
    def edit(val: int, **editing) -> int:
        data = dataclasses.replace(DIGITS, val=val)
        params = make_params(editing=editing)
        stages = plan_stages(params, data, plan_networks(params, data))
        return next(s.flops for s in stages if s.name == "edit")

    few = edit(100, images=400, seeds=[0], iterations=4)
    assert edit(200, images=400, seeds=[0, 1], iterations=4) == 4 * few
    assert edit(1000, images=100, seeds=[0], iterations=4) == few
    params = make_params()
    one_pass = costs.decoding_pass(transformer_config(params, 10), 1)
    assert edit(100, images=400, seeds=[0], iterations=6) - few == 5 * 100 * 2 * one_pass


def test_guidance_doubles_the_decoding(make_params):
    def evaluate(scale: float) -> int:
        params = make_params(
            training={"label_drop": 0.1}, decoding={"guidance_scale": scale, "iterations": 10}
        )
        stages = plan_stages(params, DIGITS, plan_networks(params, DIGITS))
        return next(s.flops for s in stages if s.name == "evaluate")

    params = make_params()
    samples = max(params.evaluation.samples, params.cas.samples)
    one_pass = costs.decoding_pass(transformer_config(params, 10), 1)
    assert evaluate(1.0) - evaluate(0.0) == samples * 10 * one_pass
