"""The device that a process uses, and bfloat16 on CPUs that are faster with it."""

import dataclasses
import re
import shutil
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive
from pipeline.decoding.iterative import generate
from pipeline.runtime import device, precision
from pipeline.runtime.errors import UserError
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
    """A CPU that is slower in bfloat16 than in float32."""
    monkeypatch.setattr(device, "_picked", [])
    monkeypatch.setenv("MASKGIT_PRECISION", "products in float32; convolutions in float32")


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


@pytest.mark.parametrize("faster", ["products", "convolutions", ""])
def test_a_cpu_computes_in_the_precision_that_is_faster(monkeypatch, tmp_path, faster):
    """Each kind of network is timed separately; "force" requires no timing."""
    monkeypatch.delenv(precision.PRECISION, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    times = {nn.GELU: "products", nn.Conv2d: "convolutions"}

    def timed(block, batch):
        (kind,) = {times[type(layer)] for layer in block if type(layer) in times}
        return (1.0, 1.2) if kind == faster else (1.0, 1.1)

    monkeypatch.setattr(precision, "_times", timed)
    for kind in ("products", "convolutions"):
        for asked, half in ((True, kind == faster), (False, False), ("force", True)):
            with precision.autocast(CPU, asked, kind):
                found = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
            assert found == (torch.bfloat16 if half else torch.float32)
        assert precision.in_bfloat16(True, CUDA, kind)


def test_a_choice_is_measured_once_and_outlives_the_cache(monkeypatch, tmp_path):
    cache, runs, measured = tmp_path / "cache", tmp_path / "runs", []
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(precision, "measured", lambda: measured.append(1) or f"no. {len(measured)}")

    def chosen(*folders: Path) -> str:
        monkeypatch.delenv(precision.PRECISION, raising=False)
        return precision.choice(*folders)

    assert chosen(runs) == chosen() == precision.choice() == "no. 1"
    shutil.rmtree(cache)
    assert chosen(runs) == "no. 1" and this_machine()["device"] == "cpu, no. 1"
    (cache / "maskgit/precision.json").write_text("{")  # damaged
    assert chosen() == "no. 2" and chosen(runs) == "no. 1"


def test_the_choice_takes_little_time_and_no_random_numbers():
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    began = time.process_time()
    with torch.inference_mode():  # as in decoding
        said = precision.measured()
    assert re.findall(r"(\w+) in (?:bfloat16|float32)", said) == ["products", "convolutions"]
    assert time.process_time() - began < 1.5
    assert torch.equal(torch.random.get_rng_state(), state) and torch.get_num_threads() == threads


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
    assert this_machine()["device"].startswith("cpu, products in float32")
