"""`maskgit plan` against closed forms, real networks and real files."""

import json

import pytest
import torch

from pipeline.classifier import Classifier
from pipeline.config.presets import preset_names, preset_params
from pipeline.runtime.dag import read_stages
from pipeline.runtime.errors import UserError
from pipeline.tokenizer import Tokenizer
from pipeline.tools.plan import PEAKS, SHARE, DataSize, Plan, costs, count_flops, data_size
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import classifier_config, tokenizer_config, transformer_config
from pipeline.weights.published import save_model
from tests.command_line import maskgit
from tests.params import make_params

DIGITS = DataSize(train=4000, val=1000, classes=10, origin="test")


def test_a_training_step_at_the_papers_size_is_the_closed_form():
    params = preset_params("imagenet256")
    planned = costs(params, classes=1000)
    s, d, codes = 257, 768, 1024
    linear, attention = 24 * (4 * d * d + 2 * d * 3072), 24 * 2 * s * d  # of a position
    assert planned.body == 2 * s * (linear + attention)
    assert planned.head == 2 * (d * d + d * codes)
    assert planned.parameters["transformer"] == 172_457_193
    assert planned.parameters["tokenizer"] == 54_515_587


def test_a_training_step_counts_as_three_forward_passes_of_the_real_networks():
    params, batch = make_params(), 4
    planned, tokens = costs(params, 10), torch.zeros(batch, 49, dtype=torch.long)
    images = torch.rand(batch, 1, 28, 28)
    transformer = MaskGitTransformer(transformer_config(params, 10))
    tokenizer = Tokenizer(tokenizer_config(params))
    classifier = Classifier(classifier_config(params, 10))
    steps = {
        "transformer": lambda: transformer.predict(tokens, tokens.bool(), tokens[:, 0]),
        "tokenizer": lambda: tokenizer(images)[0],
        "classifier": lambda: classifier(images),
    }
    forward = {
        "transformer": planned.body + 49 * planned.head,
        "tokenizer": planned.encode + planned.decode,
        "classifier": planned.classifier,
    }
    for name, step in steps.items():
        counted = count_flops(lambda step=step: step().sum().backward())
        assert 3 * batch * forward[name] == pytest.approx(counted, rel=0.1), name


def test_the_stages_are_those_of_the_dag_and_a_longer_training_costs_more():
    plan, longer = (
        Plan(make_params(training={"steps": n}, ray={"num_workers": 2}), DIGITS)
        for n in (600, 1200)
    )
    stages = read_stages()
    assert plan.flops().keys() | plan.disk().keys() <= stages.keys()
    changed = {name for name, flops in plan.flops().items() if longer.flops()[name] != flops}
    assert changed == {"train_transformer"}
    once, twice = (each.flops()["train_transformer"] for each in (plan, longer))
    assert twice == 2 * once
    assert plan.seconds(1e12) == pytest.approx(1e12 / plan.rate / 2)


def test_guidance_and_released_weights_are_counted():
    def flops(**changes):
        return Plan(make_params(**changes), DIGITS).flops()

    guided = flops(training={"label_drop": 0.1}, decoding={"guidance_scale": 1.0})
    assert guided["temperature"] > 1.5 * flops()["temperature"]
    released = flops(transformer={"pretrained": "a.safetensors"})
    assert released["train_transformer"] == 0 < released["sweep"] < flops()["sweep"]


def test_the_disk_holds_what_is_saved(tmp_path):
    params = make_params()
    tokenizer = Tokenizer(tokenizer_config(params))
    save_model(tmp_path, "tokenizer", tokenizer.config, tokenizer.state_dict())
    size = (tmp_path / "model.safetensors").stat().st_size
    plan = Plan(params, DIGITS)
    outputs, live = plan.disk()["train_tokenizer"]
    assert outputs == pytest.approx(size, rel=0.05) and live == 8 * outputs
    grids = 4000 * params.tokens.crops_per_image + 1000
    assert plan.disk()["cache_tokens"] == (2 * 49 * grids, 0)
    assert plan.disk_bytes() > sum(2 * each[0] for each in plan.disk().values())


def test_the_size_of_the_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params, imagenet = make_params(), preset_params("imagenet256")
    sizes = lambda *args: (lambda s: (s.train, s.val, s.classes))(data_size(*args))  # noqa: E731
    assert sizes(params) == (4000, 1000, 10)
    assert sizes(params, 100) == (80, 20, 10)
    assert sizes(imagenet) == (1_281_167, 50_000, 1000)
    manifest = {"source": "mnist5k", "class_names": ["a", "b"], "shards": {}}
    manifest["counts"] = {"train": {"a": 3, "b": 4}, "val": {"a": 1, "b": 1}}
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/images/manifest.json").write_text(json.dumps(manifest))
    assert sizes(params) == (7, 2, 2)
    assert sizes(imagenet)[0] == 1_281_167  # the manifest is another data set's
    own = make_params(data={"source": "folder:mine"})
    assert sizes(own, 50, 3) == (40, 10, 3)
    for given in ((), (50,), (None, 3)):
        with pytest.raises(UserError) as error:
            data_size(own, *given)
        assert error.value.subject == "folder:mine"
    with pytest.raises(UserError) as error:
        data_size(own, 5, 5)
    assert error.value.subject == "--images"


@pytest.mark.parametrize("rate", [0.0, -1.0, 1e300, float("inf"), float("nan")])
def test_a_rate_that_no_device_has_is_refused(rate):
    with pytest.raises(UserError) as error:
        Plan(make_params(), DIGITS, tflops=rate)
    assert error.value.subject == "--tflops"


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_planned(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = preset_params(name)
    size = data_size(params, *((300, 3) if name == "photos" else ()))
    assert Plan(params, size).values()["in_all"]["seconds"] > 0


def test_the_command_prints_days_and_disk_first_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    done = maskgit("plan", "imagenet256", "--gpu", "H100", capsys=capsys)
    first, *_ = done.out.splitlines()
    assert "days on 16 × H100" in first and "GB of disk" in first
    plan = json.loads(maskgit("plan", "imagenet256", "--json", capsys=capsys).out)
    assert plan["device"]["rate"] == SHARE * PEAKS["A100"] and plan["data"]["classes"] == 1000
    total = plan["in_all"]
    assert total["flops"] == pytest.approx(sum(s["flops"] for s in plan["stages"].values()))
    assert total["seconds"] == pytest.approx(total["flops"] / plan["device"]["rate"] / 16)
    assert maskgit("plan", "smoke", "--gpu", "GTX", capsys=capsys).code == 1
    assert not list(tmp_path.iterdir())
