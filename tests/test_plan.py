"""`plan` against what is really built, saved and counted."""

import dataclasses
import json
import re
import sys

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.classifier import Classifier
from pipeline.config.presets import preset_params
from pipeline.masking import sample_training_mask
from pipeline.prepare.datasets import FolderSource
from pipeline.prepare.shards import write_manifest, write_shards
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_yaml
from pipeline.runtime.seeds import generator
from pipeline.schedules import SCHEDULES
from pipeline.tokenizer import Tokenizer
from pipeline.tools.plan import costs
from pipeline.tools.plan.networks import DataSize, Network, plan_networks, plan_stages
from pipeline.tools.plan.report import data_size, plan_text, token_cache_bytes
from pipeline.training.autoregressive import AutoregressiveTask
from pipeline.training.classifier import ClassifierTask
from pipeline.training.loop import save_checkpoint
from pipeline.training.tokenizer import TokenizerTask
from pipeline.training.tokens import cache_tokens
from pipeline.training.transformer import TransformerTask
from pipeline.training.transformer.task import ROWS
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import tokenizer_config, transformer_config
from pipeline.weights.published import save_model
from tests.images import noise_image, write_token_cache
from tests.project import ROOT

CPU = torch.device("cpu")
DIGITS = DataSize(train=4000, val=1000, classes=10, origin="test")


def network(networks: list[Network], name: str) -> Network:
    return next(n for n in networks if n.name == name)


@pytest.fixture
def tokens_dir(tmp_path):
    rng = np.random.default_rng(0)
    grids = {"train": [rng.integers(0, 64, (80, 1, 49))], "val": [rng.integers(0, 64, (4, 1, 49))]}
    labels = {split: rng.integers(0, 10, len(of[0])) for split, of in grids.items()}
    return write_token_cache(tmp_path / "tokens", grids, labels)


def digits(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    noise = generator("digits", step)
    return torch.randint(256, (4, 1, 28, 28), generator=noise).to(torch.uint8), torch.arange(4)


def default_task(name: str, params, tokens_dir):
    """A task of the default's networks, small batches."""
    if name == "tokenizer":
        return TokenizerTask(
            tokenizer_config(params),
            params.tokenizer.model_copy(update={"adversarial_start": 0}),
            lambda a, b: (a - b).abs().mean(),
            digits,
            digits(0)[0],
            seed=0,
            device=CPU,
        )
    if name == "classifier":
        config = costs.classifier_of(params, 10).config
        return ClassifierTask(config, params.classifier, digits, digits(0), 0, CPU)
    task_type = AutoregressiveTask if name == "autoregressive" else TransformerTask
    return task_type(params, tokens_dir, 10, seed=0, device=CPU)


@pytest.mark.parametrize("name", ["tokenizer", "transformer", "autoregressive", "classifier"])
def test_sizes_are_those_of_the_defaults_files(name, make_params, tokens_dir, tmp_path):
    params = make_params(training={"batch_size": 4}, ray={"num_workers": 1})
    planned = network(plan_networks(make_params(), DIGITS), name)
    task = default_task(name, params, tokens_dir)
    task.step(0)
    assert planned.parameters == sum(p.numel() for p in task.model.parameters())

    save_model(tmp_path / "model", name, task.model.config, task.model.state_dict())
    published = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert planned.published == pytest.approx(published, rel=0.01)

    history = [{"step": 100 * i, "loss": 1.0, "val_nll": 1.0, "lr": 0.1} for i in range(12)]
    checkpoint = {"task": task.state_dict(), "step": 1200, "history": history}
    save_checkpoint(checkpoint, tmp_path / "checkpoint.pt")
    live = (tmp_path / "checkpoint.pt").stat().st_size
    assert planned.checkpoint == pytest.approx(live, rel=0.01)


def test_discriminator_is_the_one_that_is_trained(make_params, tokens_dir):
    params = make_params()
    planned = network(plan_networks(params, DIGITS), "discriminator")
    task = default_task("tokenizer", params, tokens_dir)
    assert planned.parameters == sum(p.numel() for p in task.discriminator.parameters())
    assert planned.steps == params.tokenizer.steps - params.tokenizer.adversarial_start


def test_token_cache_is_that_of_a_real_one(make_params, tmp_path):
    params, images = make_params(tokens={"batch_size": 16}), tmp_path / "images"
    for label in range(2):
        for split, count in (("train", 20), ("val", 5)):
            for i in range(count):
                path = tmp_path / "source" / split / str(label) / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise_image(30, 30, "L", seed=i).save(path)
    source = FolderSource(tmp_path / "source")
    shards = {
        split: write_shards(
            source, [i for i, x in enumerate(source.items) if x.split == split], split, 64, images
        )
        for split in ("train", "val")
    }
    write_manifest(images, source, "folder", shards)
    tokenizer, folder = Tokenizer(tokenizer_config(params)).eval(), tmp_path / "tokens"
    cache_tokens(tokenizer, images, "train", params.tokens.crops_per_image, params, folder)
    cache_tokens(tokenizer, images, "val", 0, params, folder)
    measured = sum(path.stat().st_size for path in folder.glob("*.npy"))
    assert token_cache_bytes(params, DataSize(40, 10, 2, "test")) == measured


def test_token_cache_counts_every_shard(make_params):
    params = make_params()
    grids = (
        20_000 * params.tokens.crops_per_image + 100
    )  # 3 shards and 1, and a file of labels each
    wanted = grids * 49 * 2 + 20_100 * 4 + 6 * 128
    assert token_cache_bytes(params, DataSize(20_000, 100, 10, "test")) == wanted


def test_transformer_step_at_the_papers_size_is_the_closed_form():
    config = transformer_config(preset_params("imagenet256"), 1000)
    model = costs.on_meta(lambda: MaskGitTransformer(config))
    batch, rows, s, d, vocabulary = 4, 700, 257, 768, 2025
    counted = costs.training_flops(lambda: costs.transformer_forward(model, batch, rows))
    linear = 24 * (4 * d * d + 2 * d * 3072)
    attention = 24 * 2 * s * d  # queries × keys, weights × values: multiply-adds for one position
    forward = 2 * (batch * s * (linear + attention) + rows * (d * d + d * vocabulary))
    assert counted == 3 * forward


def counted_step(task, step: int) -> int:
    return costs.count_flops(lambda: task.step(step))


def test_training_flops_are_those_of_real_steps(make_params, tokens_dir):
    params = make_params(ray={"num_workers": 1}, training={"batch_size": 40})
    networks = plan_networks(params, DIGITS)
    for name, tolerance in (("transformer", 0.05), ("autoregressive", 1e-9), ("classifier", 1e-9)):
        if name == "classifier":
            params = make_params(classifier={"batch_size": 4})
            networks = plan_networks(params, DIGITS)
        task = default_task(name, params, tokens_dir)
        measured = np.mean([counted_step(task, step) for step in range(1, 7)])
        assert network(networks, name).step_flops == pytest.approx(measured, rel=tolerance), name


def test_a_worker_more_does_not_change_the_flops_of_the_baselines_step(make_params):
    steps = [
        network(plan_networks(make_params(ray={"num_workers": n}), DIGITS), "autoregressive")
        for n in (1, 4)
    ]
    assert steps[0].step_flops == steps[1].step_flops
    assert steps[0].memory > 2 * steps[1].memory  # each holds its share of the batch


def test_tokenizer_flops_are_those_of_real_steps(make_params, tokens_dir):
    params = make_params(tokenizer={"batch_size": 4, "r1_every": 2, "adversarial_start": 0})
    networks = plan_networks(params, DIGITS)
    planned = sum(network(networks, name).step_flops for name in ("tokenizer", "discriminator"))
    judge = Classifier(costs.classifier_of(params, 10).config).requires_grad_(False)
    task = default_task("tokenizer", params, tokens_dir)
    task.perceptual = lambda a, b: costs.classifier_distance(judge, a, b)
    task.params = params.tokenizer
    # The counter's hooks on modules cannot take the leaf whose gradient R1 is.
    network_call, task.discriminator.__class__ = task.discriminator.__class__, Unhooked
    assert network_call is Unhooked.__base__
    measured = np.mean([counted_step(task, step) for step in (1, 2, 3, 4)])
    assert planned == pytest.approx(measured, rel=1e-6)


class Unhooked(costs.Discriminator):
    def __call__(self, images):
        return self.forward(images)


def test_coding_flops_are_those_of_every_convolution():
    config = tokenizer_config(preset_params("cifar10"))
    grid, batch = 8, 3
    total = {"encoder": 0, "decoder": 0}
    model = Tokenizer(config)
    for part in total:
        for module in getattr(model, part).modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(
                    lambda m, _, y, part=part: total.__setitem__(
                        part, total[part] + 2 * y.numel() * m.weight[0].numel()
                    )
                )
    images = torch.rand(batch, 3, grid * config.downsampling, grid * config.downsampling)
    model.decode(model.encode(images))
    nearest = 2 * batch * grid**2 * config.codebook_size * config.embedding_dim
    wanted = (total["encoder"] + nearest, total["decoder"])
    assert costs.tokenizer_coding(config, grid, batch) == wanted


def test_cached_sampling_is_the_sum_over_all_positions(make_params):
    config = dataclasses.replace(transformer_config(make_params(), 10), num_tokens=16, layers=1)
    each = [costs.next_token(config, 2, n, cache=True) for n in range(config.num_tokens)]
    assert costs.autoregressive_sampling(config, 2) == sum(each)
    whole = [costs.next_token(config, 2, n, cache=False) for n in (0, 10)]
    assert whole[0] == each[0] and whole[1] > 5 * each[10]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_head_rows_are_those_of_drawn_masks(schedule, make_params):
    params = make_params(training={"min_masking_rate": 0.2})
    noise = generator("masks", schedule)
    masks = sample_training_mask(20_000, params.num_tokens, schedule, noise, 0.2)
    masked = masks.sum() / len(masks)
    rows = costs.head_rows(params, schedule, batch=100)
    assert rows - ROWS / 2 == pytest.approx(100 * masked.item(), rel=0.01)


def test_activations_are_what_autograd_keeps(make_params):
    config = transformer_config(make_params(), 10)
    meta = costs.on_meta(lambda: MaskGitTransformer(config))
    real = MaskGitTransformer(config)
    tokens = torch.zeros(8, 49, dtype=torch.long)
    where = torch.zeros(100, dtype=torch.long)
    kept = costs.activation_bytes(real, lambda: real(tokens, tokens.bool(), tokens[:, 0], where))
    assert kept == costs.activation_bytes(meta, lambda: costs.transformer_forward(meta, 8, 100))
    hidden = 8 * 50 * config.hidden * 4
    assert kept > 10 * hidden * config.layers


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


def test_size_of_the_data_set(make_params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = make_params()
    assert dataclasses.astuple(data_size(params))[:3] == (4000, 1000, 10)
    assert dataclasses.astuple(data_size(params, images=100))[:3] == (80, 20, 10)
    imagenet = preset_params("imagenet256")
    assert dataclasses.astuple(data_size(imagenet))[:3] == (1_281_167, 50_000, 1000)

    manifest = {"source": "mnist5k", "class_names": ["a", "b"]}
    manifest["counts"] = {"train": {"a": 3, "b": 4}, "val": {"a": 1, "b": 1}}
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/images/manifest.json").write_text(json.dumps(manifest))
    assert dataclasses.astuple(data_size(params))[:3] == (7, 2, 2)
    assert data_size(imagenet).train == 1_281_167  # the manifest is another data set's

    own = make_params(data={"source": "folder:mine"})
    assert dataclasses.astuple(data_size(own, 50, 3))[:3] == (40, 10, 3)
    with pytest.raises(UserError, match="--images 0 is no size"):
        data_size(own, 0, 3)
    for images, classes in ((None, None), (50, None), (None, 3)):
        with pytest.raises(UserError, match=r"folder:mine .*--images and --classes") as error:
            data_size(own, images, classes)
        assert "\n" not in str(error.value)


def test_times_are_flops_over_the_rate_of_all_devices(make_params):
    params = make_params(ray={"num_workers": 2})
    text = plan_text(params, DIGITS, tflops=0.001)
    networks = plan_networks(params, DIGITS)
    stage = next(s for s in plan_stages(params, DIGITS, networks) if s.name == "train_transformer")
    hours = stage.flops / 1e9 / 2 / 3600
    (line,) = re.findall(r"^train_transformer .*$", text, flags=re.MULTILINE)
    assert f"{60 * hours:.1f} min" in line or f"{hours:.1f} h" in line
    assert "time at" not in plan_text(params, DIGITS)
    with pytest.raises(UserError, match="--tflops 0 is no rate"):
        plan_text(params, DIGITS, tflops=0.0)


def test_command_prints_a_preset_and_changes_nothing(tmp_path, monkeypatch, capsys):
    from pipeline.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pipeline", "plan", "imagenet256", "--tflops", "100"])
    main()
    text = capsys.readouterr().out
    assert "172,457,193" in text and "54,515,587" in text and "published size" in text
    assert not list(tmp_path.iterdir())
