"""The device that a process takes, and bfloat16 where the processor multiplies it."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive
from pipeline.decoding import generate
from pipeline.runtime import device
from pipeline.runtime.dag import stage_params
from pipeline.runtime.errors import UserError
from pipeline.runtime.stage import Stage
from pipeline.runtime.trials import this_machine
from pipeline.training.tokens import Coder
from pipeline.transformer import MaskGitTransformer
from tests.interruption import weight_bytes
from tests.params import make_params
from tests.project import ROOT
from tests.tiny_networks import spread
from tests.tiny_project import GRID, with_params
from tests.transformer_task import transformer_task

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def with_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda of: "NVIDIA H100")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(device, "_picked", [])
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def older(monkeypatch):
    """This machine's CPU without products in bfloat16."""
    monkeypatch.setattr(device, "_picked", [])
    monkeypatch.setattr(device, "_cpu_multiplies_bfloat16", lambda: False)


def test_a_stage_takes_a_gpu_only_where_its_params_say_so(with_gpu):
    assert device.worker_device(use_gpu=False) == CPU and this_machine()["device"].startswith("cpu")
    assert device.worker_device(use_gpu=True) == CUDA and this_machine()["device"] == "NVIDIA H100"
    rooms = ("stages", "pipeline/experiments", "pipeline/training", "pipeline/evaluation")
    for path in (path for room in rooms for path in (ROOT / room).rglob("*.py")):
        assert "pick_device" not in path.read_text(), path


def test_a_head_without_a_gpu_leaves_the_work_to_the_workers(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.pick_device() == CPU
    assert device.driver_device(True, workers=2) == device.driver_device(False, workers=1) == CPU
    with pytest.raises(UserError, match="no GPU"):
        device.driver_device(True, workers=1)


@pytest.mark.parametrize(
    ("onednn", "flags", "quick"),
    [
        (True, {"avx512_bf16": True}, True),
        (True, {"avx512_bf16": False}, False),  # AVX-512 alone: oneDNN converts
        (False, {"avx512_bf16": True}, False),  # by ONEDNN_MAX_CPU_ISA
        (True, {"bf16": True}, True),  # ARM
    ],
)
def test_a_cpu_is_quick_where_it_multiplies_bfloat16(monkeypatch, onednn, flags, quick):
    monkeypatch.setattr(device, "onednn_takes_bfloat16", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    assert device.quick_in_bfloat16(CPU) == quick and device.quick_in_bfloat16(CUDA)
    for asked in (True, False):
        x = torch.ones(2, 2)
        with device.autocast(CPU, asked):
            found = (x @ x).dtype
        assert found == (torch.bfloat16 if asked and quick else torch.float32)


@pytest.mark.parametrize("bf16", [True, False])
def test_tokens_are_made_in_bfloat16_if_asked_for(in_tiny_project, in_bfloat16, bf16):
    coder, autocast = Coder("val", 2, with_params(tokens={"bf16": bf16}), CPU), []

    def encode(images):
        autocast.append(torch.is_autocast_enabled("cpu"))
        return torch.zeros(len(images), GRID, GRID, dtype=torch.long)

    coder.tokenizer.encode = encode
    assert coder(0, 5)["tokens"].shape == (5, 2, GRID**2)
    assert autocast == 2 * [bf16]


def test_another_cpu_trains_and_draws_in_float32(older, tiny, tokens_dir):
    def trained(bf16: bool) -> bytes:
        task = transformer_task(tiny(bf16=bf16), tokens_dir)
        for step in range(2):
            task.step(step)
        return weight_bytes(task.model)

    def drawn(bf16: bool) -> torch.Tensor:
        settings = make_params().decoding_settings()
        settings = dataclasses.replace(settings, iterations=3, bf16=bf16)
        *_, ours = generate(spread(MaskGitTransformer), labels, settings, seed=0)
        baseline = spread(AutoregressiveTransformer)
        theirs = generate_autoregressive(baseline, labels, seed=0, bf16=bf16)
        return torch.stack([ours.sampled, theirs])

    labels = torch.arange(6) % 4
    assert trained(True) == trained(False)
    assert torch.equal(drawn(True), drawn(False))
    assert this_machine()["device"] == "cpu, in float32"


def test_a_stage_names_the_params_that_ask_for_bfloat16(older, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(json.dumps(make_params().model_dump()))
    listed = {"sweep": ["training", "autoregressive", "decoding"], "prepare": ["seed"]}
    stages = {name: {"params": params, "outs": ["rows.csv"]} for name, params in listed.items()}
    Path("dvc.yaml").write_text(json.dumps({"stages": stages}))
    for name in ("sweep", "prepare"):
        Stage(name, make_params())._print_precision(stage_params(name))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("sweep: training.bf16, decoding.bf16 without effect")
