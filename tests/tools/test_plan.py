"""`maskgit plan` against closed forms, real networks and real files."""

import json
import re

import pytest
import torch

from pipeline.classifier import Classifier
from pipeline.config.presets import preset_params
from pipeline.runtime.dag import read_stages
from pipeline.tokenizer import Tokenizer
from pipeline.tools.plan import CORE, PEAKS, SHARE, DataSize, Plan, costs, count_flops, data_size
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import classifier_config, tokenizer_config, transformer_config
from pipeline.weights.published import save_model
from tests.command_line import maskgit
from tests.errors import refused
from tests.params import make_params

DIGITS = DataSize(train=4000, val=1000, classes=10, origin="test")


def test_a_training_step_at_the_papers_size_is_the_closed_form():
    params = preset_params("imagenet256")
    small = params.classifier.model_copy(update={"architecture": "small"})
    planned = costs(params.model_copy(update={"classifier": small}), classes=1000)
    s, d, codes = 257, 768, 1024
    linear, attention = 24 * (4 * d * d + 2 * d * 3072), 24 * 2 * s * d  # of one position
    assert planned.body == 2 * s * (linear + attention)
    assert planned.head == 2 * (d * d + d * codes)
    assert planned.parameters["transformer"] == 172_457_193


def test_a_training_step_counts_as_three_forward_passes_of_the_real_networks():
    params, batch = make_params(), 2
    planned, tokens = costs(params, 10), torch.zeros(batch, 49, dtype=torch.long)
    images, masked = torch.rand(batch, 1, 28, 28), torch.ones(batch, 49, dtype=torch.bool)
    transformer = MaskGitTransformer(transformer_config(params, 10))
    tokenizer = Tokenizer(tokenizer_config(params))
    classifier = Classifier(classifier_config(params, 10))
    forward = {
        lambda: transformer.predict(tokens, masked, tokens[:, 0]): planned.body + 49 * planned.head,
        lambda: tokenizer(images)[0]: planned.encode + planned.decode,
        lambda: classifier(images): planned.classifier,
    }
    for run, flops in forward.items():
        counted = count_flops(lambda run=run: run().sum().backward())
        assert 3 * batch * flops == pytest.approx(counted, rel=0.1)


def test_each_setting_changes_the_stages_that_it_concerns():
    plain, longer, guided, released = (
        Plan(make_params(**changes), DIGITS)
        for changes in (
            {"ray": {"num_workers": 2}},
            {"training": {"steps": 2 * make_params().training.steps}},
            {"training": {"label_drop": 0.1}, "decoding": {"guidance_scale": 1.0}},
            {"transformer": {"pretrained": "a.safetensors"}},
        )
    )
    flops = plain.flops()
    assert flops.keys() | plain.disk().keys() <= read_stages().keys()
    changed = {name for name, count in longer.flops().items() if count != flops[name]}
    assert changed == {"train_transformer"}
    assert longer.flops()["train_transformer"] == 2 * flops["train_transformer"]
    assert plain.seconds(1e12) == pytest.approx(1e12 / plain.rate / 2)
    assert guided.flops()["temperature"] > 1.5 * flops["temperature"]
    assert released.flops()["train_transformer"] == 0 < released.flops()["sweep"] < flops["sweep"]


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

    def sizes(*given):
        size = data_size(*given)
        return size.train, size.val, size.classes

    assert sizes(params) == (4000, 1000, 10)
    assert sizes(params, 100) == (80, 20, 10)
    assert sizes(imagenet) == (1_281_167, 50_000, 1000)
    manifest = {"source": "mnist5k", "class_names": ["a", "b"], "shards": {}}
    manifest["counts"] = {"train": {"a": 3, "b": 4}, "val": {"a": 1, "b": 1}}
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/images/manifest.json").write_text(json.dumps(manifest))
    assert sizes(params) == (7, 2, 2)
    assert sizes(imagenet)[0] == 1_281_167  # the manifest is of another data set
    own = make_params(data={"source": "folder:mine"})
    assert sizes(own, 50, 3) == (40, 10, 3)
    for given in ((), (50,), (None, 3)):
        with refused("folder:mine"):
            data_size(own, *given)


def test_the_rate_is_of_the_device_that_is_named_or_of_the_params():
    assert Plan(make_params(ray={"use_gpu": True}), DIGITS).rate == SHARE * PEAKS["A100"]
    assert Plan(make_params(), DIGITS, gpu="H100").rate == SHARE * PEAKS["H100"]
    assert Plan(make_params(ray={"cpus_per_worker": 2}), DIGITS).rate == 2 * CORE
    assert Plan(make_params(), DIGITS, tflops=150).rate == 150e12
    for rate in (0.0, -1.0, 1e300, float("nan")):
        with refused("--tflops"):
            Plan(make_params(), DIGITS, tflops=rate)


def test_the_command_prints_time_and_disk_first_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    done = maskgit("plan", "evening", "--gpu", "H100", capsys=capsys)
    first, *_ = done.out.splitlines()
    assert re.match(r"About .* on 1 × H100 \(30% .*\), and .*B of disk", first)
    assert re.search(r"\ntrain_transformer +\S+ [TP]FLOP ", done.out)
    assert maskgit("plan", "smoke", "--gpu", "GTX", capsys=capsys).code == 1
    assert not list(tmp_path.iterdir())
