"""Which stages `plan` counts, and how often each repeats what a step or a pass costs."""

import dataclasses
import re
from functools import cache

import pytest

from pipeline.config.presets import preset_params
from pipeline.experiments.ablation.grid import trial_workers
from pipeline.runtime.files import read_yaml
from pipeline.tools.plan import costs
from pipeline.tools.plan.data import data_size
from pipeline.tools.plan.networks import Network, plan_networks
from pipeline.tools.plan.report import plan_text
from pipeline.tools.plan.stages import plan_stages
from pipeline.tools.plan.work import Device, Stage
from pipeline.weights.configs import tokenizer_config, transformer_config
from tests.planned import DIGITS
from tests.project import ROOT

RATE = 150e12  # FLOP/s of a GPU, as docs/scaling.md has it
# Of 64 GPUs trials and classifiers leave some out.
SIXTEEN = {"sweep": {"workers_per_trial": 16}, "cas": {"workers_per_classifier": 16}}


def stages_of(params, data=DIGITS) -> dict[str, Stage]:
    return {s.name: s for s in plan_stages(params, data, plan_networks(params, data))}


def test_sweep_is_trials_times_steps_and_the_decode_grid(make_params):
    def sweep(**changes) -> int:
        own = {"schedules": ["cosine"], "seeds": [0], "crossed": []}
        stage = stages_of(make_params(sweep=own | changes))["sweep"]
        return stage.flops_of("training") + stage.flops_of("sampling")

    one = sweep(steps=10, samples=100, iterations=[2, 8])
    assert sweep(steps=10, samples=100, iterations=[2, 8], seeds=[0, 1, 2]) == 3 * one
    assert sweep(steps=20, samples=200, iterations=[2, 8]) == 2 * one
    params = make_params()
    config = transformer_config(params, 10)
    _, decode = costs.tokenizer_coding(tokenizer_config(params), 7, 1)
    more = sweep(steps=10, samples=100, iterations=[2, 8, 5]) - one
    assert more == 100 * (5 * costs.decoding_pass(config, 1) + decode)
    two = ["cosine", "linear"]
    few = {"steps": 10, "samples": 100, "iterations": [2], "schedules": two}
    crossed = sweep(crossed=two, **few) - sweep(**few)
    passes = params.decoding.iterations * costs.decoding_pass(config, 1)
    assert crossed == 2 * 2 * 100 * (passes + decode)


def test_networks_are_trained_once_a_seed_and_label_smoothing(make_params):
    def trained(seeds: list[int], others: list[float], **released) -> tuple[int, int]:
        params = make_params(
            evaluation={"seeds": seeds},
            training={"other_label_smoothings": others},
            transformer=released,
        )
        stages = stages_of(params)
        return stages["train_transformer"].flops, stages["train_autoregressive"].flops

    ours, theirs = trained([0], [])
    assert trained([0, 1, 2], []) == (3 * ours, 3 * theirs)
    assert trained([0, 1, 2], [0.0, 0.2]) == (9 * ours, 9 * theirs)
    one = {"evaluation": {"seeds": [0]}, "training": {"other_label_smoothings": []}}
    look = stages_of(make_params(**one))["train_transformer"]
    looked_at = -(-make_params().training.steps // make_params().training.checkpoint_every)
    once = look.flops_of("validation") // looked_at
    assert trained([0, 1], [0.0], pretrained="b") == (once, 4 * theirs)


def test_released_weights_are_not_trained(make_params):
    params = make_params(tokenizer={"pretrained": "a"}, transformer={"pretrained": "b"})
    networks = plan_networks(params, DIGITS)
    assert [n.name for n in networks] == [
        "tokenizer",
        "transformer",
        "autoregressive",
        "classifier",
    ]
    stages, trained = stages_of(params), stages_of(make_params())
    for name in ("train_tokenizer", "train_transformer"):
        (look,) = (part for part in stages[name].parts if part.flops)
        assert look.what == "validation" and look.devices == params.ray.num_workers
    assert stages["sweep"].flops_of("training") == 0
    assert stages["sweep"].flops_of("sampling") == trained["sweep"].flops_of("sampling") > 0
    assert plan_text(params, DIGITS).count("ready-made") == 2


def test_trainings_beside_one_another_leave_devices_idle_where_they_do_not_divide(make_params):
    """Of 12 devices: 7 trials of 4 workers are three at once in three rounds; 6 classifiers of 4 in
    two; all other stages are on every device."""
    params = make_params(
        ray={"num_workers": 12},
        training={"batch_size": 24},
        tokenizer={"batch_size": 24},
        classifier={"batch_size": 24},
        sweep={"seeds": [0], "workers_per_trial": 4},
        evaluation={"seeds": [0]},
        cas={"workers_per_classifier": 4},
    )
    devices = {name: stage.parts[0].devices for name, stage in stages_of(params).items()}
    assert devices.pop("sweep") == 28 / 3 and devices.pop("cas") == 12
    assert set(devices.values()) == {12}


def test_one_of_a_trials_workers_measures_while_the_others_decode_and_look(make_params):
    sweep = {"schedules": ["cosine", "linear"], "seeds": [0], "crossed": []}
    params = make_params(
        ray={"num_workers": 8},
        sweep=sweep | {"workers_per_trial": 4},
    )
    parts = {part.what: part.devices for part in stages_of(params)["sweep"].parts[2:5]}
    assert parts == {"sampling": 6, "features": 6, "validation": 2}


@pytest.mark.parametrize(
    ("devices", "each", "decode"),
    [
        (1, 1, 1),
        (2, 1, 2),  # a trial each
        (4, 4, 3),  # three decode for one trial, then for the other
        (8, 4, 6),
    ],
)
def test_trials_of_released_weights_have_several_workers_where_that_is_quicker(
    make_params, devices, each, decode
):
    sweep = {"schedules": ["cosine", "linear"], "seeds": [0], "crossed": [], "workers_per_trial": 4}
    params = make_params(
        ray={"num_workers": devices},
        sweep=sweep,
        transformer={"pretrained": "b"},
    )
    assert trial_workers(params).count == each
    assert stages_of(params)["sweep"].parts[0].devices == decode


@pytest.mark.parametrize(
    ("devices", "trials", "each"), [(16, 8, 16), (8, 4, 8), (16, 7, 16), (4, 40, 1), (1, 7, 1)]
)
def test_trials_of_released_weights_choose_where_no_number_is_given(
    make_params, devices, trials, each
):
    """What takes them least: as few as leave none idle may leave half of them idle here, where one
    of each trial's only measures."""
    params = make_params(
        ray={"num_workers": devices, "elastic": True},
        sweep={"schedules": ["cosine"], "seeds": list(range(trials)), "crossed": []}
        | {"workers_per_trial": None},
        transformer={"pretrained": "b"},
    )
    assert trial_workers(params).count == each


@cache
def papers_networks(workers: int) -> list[Network]:
    """Those of imagenet256, which no number of workers of a trial or a classifier changes."""
    params = preset_params("imagenet256")
    ray = params.ray.model_copy(update={"num_workers": workers})
    params = params.model_copy(update={"ray": ray})
    return plan_networks(params, data_size(params))


def papers_run(workers: int, others: dict) -> tuple:
    """imagenet256 on as many GPUs: params, stages, FLOPs, and seconds at `RATE`."""
    params = preset_params("imagenet256")
    for section, values in ({"ray": {"num_workers": workers}} | others).items():
        own = getattr(params, section).model_copy(update=values)
        params = params.model_copy(update={section: own})
    data = data_size(params)
    stages = plan_stages(params, data, papers_networks(workers))
    seconds = sum(stage.seconds(Device(RATE, params.ray.cpus_per_worker)) for stage in stages)
    return params, stages, sum(stage.flops for stage in stages), seconds


def test_the_papers_run_uses_all_devices_as_well_as_the_page_says(tmp_path, monkeypatch):
    """And no large stage fewer than there are, as the preset is."""
    monkeypatch.chdir(tmp_path)  # the published size, and not that of images prepared here
    page = " ".join((ROOT / "docs/scaling.md").read_text(encoding="utf-8").split())
    pattern = r"16 GPUs says (\S+) days, (\S+) times .* 64 GPUs take (\S+) times, and (\S+) with"
    found, slower = [], []
    for workers, others, allowed in (
        (16, {}, 1.15),  # as the preset is
        (64, {}, 1.1),
        (64, SIXTEEN, 1.25),
    ):
        params, stages, flops, seconds = papers_run(workers, others)
        time = sum(stage.flops / stage.devices for stage in stages)
        assert time <= allowed * flops / workers
        # Pictures that the processors make for the networks are waited for.
        assert seconds <= allowed * flops / workers / RATE
        found += [f"{seconds / 86400:.1f}"] if workers == 16 else []
        found.append(f"{seconds * workers * RATE / flops:.2f}")
        seconds = sum(stage.seconds(Device(RATE, 8, 40e12)) for stage in stages)
        slower.append(f"{seconds * workers * RATE / flops:.2f}")
        if others:
            idle = {stage.name: f"{workers - stage.devices:.0f}" for stage in stages}
            says = f"the sweep leaves {idle['sweep']} of 64 GPUs idle, and CAS {idle['cas']}"
            assert says in page
        else:
            parts, cores = [p for stage in stages for p in stage.parts], params.ray.cpus_per_worker
            assert [
                part
                for part in parts
                if part.devices < workers
                and max(part.flops / flops, part.seconds(Device(RATE, cores)) / seconds) > 0.01
            ] == []
    assert list(re.search(pattern, page).groups()) == found
    assert "With 40 TFLOP/s in float32 it is {}, {} and {} times".format(*slower) in page


def test_the_page_on_scaling_says_what_the_plan_says_of_float32_and_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = " ".join((ROOT / "docs/scaling.md").read_text(encoding="utf-8").split())

    def days(float32: float | None, **tokenizer: bool) -> str:
        _, stages, *_ = papers_run(16, {"tokenizer": tokenizer})
        return f"{sum(s.seconds(Device(RATE, 8, float32)) for s in stages) / 86400:.1f}"

    assert f"says {days(None)} days of 16 GPUs in place of {days(40e12)} at 40 TFLOP/s" in page
    assert f"or of {days(19.5e12)} at an A100's peak" in page
    slow = days(40e12, tf32=False), days(19.5e12, tf32=False)
    assert (
        "Without TF32 16 GPUs take {} days at 40 TFLOP/s, and {} at an A100's peak".format(*slow)
        in page
    )
    _, stages, flops, _ = papers_run(16, {})
    tf32 = sum(part.tf32 for stage in stages for part in stage.parts)
    assert f"{tf32 / 1e18:.0f} EFLOP; with `tokenizer.tf32`" in page
    assert f"{tf32 / RATE / 16 / 3600:.1f} hours more of 16 GPUs" in page
    share = sum(stage.float32 for stage in stages)
    assert f"{share / 1e18:.0f} EFLOP, {share / flops:.1%} of the run's" in page
    core = {stage.name: stage.core_seconds for stage in stages}
    times = f"{core['sweep'] / 60:.0f} min, {core['evaluate'] / 3600:.1f} h, "
    times += f"{core['edit'] / 60:.0f} min and {core['reject'] / 3600:.1f} h of one core"
    assert times in page
    seconds = next(s for s in stages if s.name == "cas").seconds(Device(RATE, 8)) / 3600
    alone = next(s for s in stages if s.name == "cas").flops / RATE / 16 / 3600
    assert f"{seconds:.1f} h in place of {alone:.1f}" in page


def test_stages_are_those_of_the_dag_but_those_that_the_text_names(make_params):
    params = make_params()
    planned = {s.name for s in plan_stages(params, DIGITS, plan_networks(params, DIGITS))}
    dag = read_yaml(ROOT / "dvc.yaml")["stages"]
    assert planned < set(dag)
    text = " ".join(plan_text(params, DIGITS).split())
    named = text.split("and the stages ")[1].split(". Memory")[0]
    assert named.split(", ") == [name for name in dag if name not in planned]


def test_edits_are_of_the_held_out_images_that_there_are(make_params):
    def edit(val: int, seeds=(0,), **editing) -> int:
        data = dataclasses.replace(DIGITS, val=val)
        params = make_params(editing=editing, evaluation={"seeds": list(seeds)})
        return stages_of(params, data)["edit"].flops_of("sampling")

    few = edit(100, images=400, iterations=4)
    assert edit(200, images=400, seeds=[0, 1], iterations=4) == 4 * few
    assert edit(1000, images=100, iterations=4) == few
    params = make_params()
    one_pass = costs.decoding_pass(transformer_config(params, 10), 1)
    assert edit(100, images=400, iterations=6) - few == 5 * 100 * 2 * one_pass


def test_guidance_doubles_the_decoding(make_params):
    def evaluate(scale: float) -> int:
        params = make_params(
            training={"label_drop": 0.1}, decoding={"guidance_scale": scale, "iterations": 10}
        )
        return stages_of(params)["evaluate"].flops

    params = make_params()
    # CAS is trained on the samples of the main replicates; those of the other label smoothing are
    # only measured.
    samples = 3 * max(params.evaluation.samples, params.cas.samples) + 3 * params.evaluation.samples
    one_pass = costs.decoding_pass(transformer_config(params, 10), 1)
    assert evaluate(1.0) - evaluate(0.0) == samples * 10 * one_pass
