"""bfloat16 where the processor multiplies it, and float32 where it would have to convert."""

import dataclasses
import json
import platform
from pathlib import Path

import pytest
import torch

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive
from pipeline.decoding import generate
from pipeline.runtime import device
from pipeline.runtime.device import autocast, quick_in_bfloat16
from pipeline.runtime.stage import Stage
from pipeline.runtime.trials import this_machine
from pipeline.tools.bench.timing import precisions
from pipeline.tools.doctor.examine import examine
from pipeline.transformer import MaskGitTransformer
from tests.interruption import weight_bytes
from tests.test_train_classifier import classifier_task
from tests.test_train_tokenizer import tokenizer_task
from tests.tiny_networks import spread
from tests.transformer_task import transformer_task

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def older(monkeypatch):
    """This machine's CPU without products in bfloat16."""
    monkeypatch.setattr(device, "_cpu_multiplies_bfloat16", lambda: False)


@pytest.mark.parametrize(
    ("machine", "onednn", "avx512_bf16", "quick"),
    [
        ("x86_64", True, True, True),
        ("x86_64", True, False, False),  # AVX-512 alone: oneDNN converts
        ("x86_64", False, False, False),
        ("AMD64", True, True, True),
        ("aarch64", True, None, True),
        ("aarch64", False, None, False),
    ],
)
def test_a_cpu_is_quick_where_it_multiplies_bfloat16(
    monkeypatch, machine, onednn, avx512_bf16, quick
):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(avx512_bf16))
    device._cpu_multiplies_bfloat16.cache_clear()
    try:
        assert quick_in_bfloat16(CPU) == quick and quick_in_bfloat16(CUDA)
    finally:
        monkeypatch.undo()
        device._cpu_multiplies_bfloat16.cache_clear()


@pytest.mark.parametrize("asked", [True, False])
def test_autocast_is_what_was_asked_for_where_it_is_quick(monkeypatch, asked):
    for quick in (True, False):
        monkeypatch.setattr(device, "_cpu_multiplies_bfloat16", lambda quick=quick: quick)
        x = torch.ones(2, 2)
        with autocast(CPU, asked):
            found = (x @ x).dtype
        assert found == (torch.bfloat16 if asked and quick else torch.float32)


@pytest.mark.parametrize("make", ["classifier", "tokenizer", "transformer"])
def test_trainings_are_those_in_float32(older, make, make_params, tiny, tokens_dir):
    def trained(bf16: bool) -> bytes:
        if make == "classifier":
            task = classifier_task(make_params, steps=20, bf16=bf16)
        elif make == "tokenizer":
            task = tokenizer_task(make_params, bf16=bf16)
        else:
            task = transformer_task(tiny(bf16=bf16), tokens_dir)
        for step in range(2):
            task.step(step)
        return weight_bytes(task.model)

    assert trained(True) == trained(False)


def test_samples_are_those_in_float32(older, make_params):
    labels, settings = torch.arange(6) % 4, make_params().decoding_settings()
    settings = dataclasses.replace(settings, iterations=3)
    model, baseline = spread(MaskGitTransformer), spread(AutoregressiveTransformer)

    def drawn(bf16: bool) -> torch.Tensor:
        ours = generate(model, labels, dataclasses.replace(settings, bf16=bf16), seed=0)
        theirs = generate_autoregressive(baseline, labels, seed=0, bf16=bf16)
        return torch.stack([ours[-1].sampled, theirs])

    assert torch.equal(drawn(True), drawn(False))


def test_a_stage_names_the_params_that_ask_for_bfloat16(
    older, make_params, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(json.dumps(make_params().model_dump()))
    listed = {"sweep": ["training", "autoregressive", "decoding"], "prepare": ["seed"]}
    stages = {name: {"params": params, "outs": ["rows.csv"]} for name, params in listed.items()}
    Path("dvc.yaml").write_text(json.dumps({"stages": stages}))
    for name in ("sweep", "prepare"):
        Stage(name, make_params())._say_precision()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("sweep: training.bf16, decoding.bf16 without effect on the CPU of ")
    Stage("sweep", make_params(ray={"use_gpu": True}))._say_precision()
    assert capsys.readouterr().out == ""


def test_records_say_what_a_cpu_computes_in(older, monkeypatch):
    monkeypatch.setattr(device, "_picked", [])
    assert this_machine()["device"] == "cpu, in float32"
    monkeypatch.setattr(device, "_cpu_multiplies_bfloat16", lambda: True)
    assert this_machine()["device"] == "cpu"


def test_the_doctor_and_the_bench_know_it(older):
    (found,) = [each for each in examine() if each.subject == "device"]
    assert found.found.endswith("; a CPU quicker in float32 than in bfloat16, and so in float32")
    assert precisions(CPU) == ["float32"] and precisions(CUDA) == ["bfloat16", "float32"]
