"""The device that a process takes, on a machine that says it has a GPU."""

import importlib

import pytest
import torch

from pipeline.experiments import cas
from pipeline.runtime import device
from pipeline.runtime.batches import workers_of
from pipeline.runtime.device import driver_device, pick_device, worker_device
from pipeline.runtime.errors import UserError
from tests.project import ROOT
from tests.test_cas import cas_job, with_params

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def with_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda **_: None
    )  # optimizers ask
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(device, "_picked", [])
    yield
    torch.use_deterministic_algorithms(False)


def test_a_process_of_its_own_takes_the_gpu_there_is(with_gpu):
    assert pick_device() == CUDA


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device._say_no_gpu.cache_clear()


NO_GPU = r"^ray\.use_gpu: PyTorch sees no GPU on .*; set it to false, or run where there is one"


def test_without_one_a_command_takes_the_cpu(without_gpu):
    assert pick_device() == CPU


def test_params_that_ask_for_one_are_refused_where_there_is_none(without_gpu):
    for ask in (worker_device, lambda use_gpu: driver_device(use_gpu, workers=1)):
        assert ask(False) == CPU
        with pytest.raises(UserError, match=NO_GPU):
            ask(True)


def test_a_head_without_one_leaves_the_work_to_the_workers_and_says_so(without_gpu, capsys):
    params = with_params(ray={"use_gpu": True, "num_workers": 2})
    assert workers_of(params.ray).device == workers_of(params.ray).device == CPU
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("ray.use_gpu: no GPU on ")


@pytest.mark.parametrize(
    "stage",
    [
        "train_classifier",
        "train_tokenizer",
        "cache_tokens",
        "evaluate",
        "temperature",
        "edit",
        "reject",
        "reconstruct",
        "speed",
    ],
)
def test_a_stage_that_would_take_it_says_so_before_any_work(
    stage, without_gpu, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=NO_GPU):
        importlib.import_module(f"stages.{stage}").main(with_params(ray={"use_gpu": True}))
    assert not list(tmp_path.iterdir())


def test_a_process_of_rays_takes_the_gpu_that_it_was_given_and_no_other(with_gpu):
    assert worker_device(use_gpu=True) == CUDA and worker_device(use_gpu=False) == CPU


@pytest.mark.parametrize("use_gpu", [True, False])
def test_a_stage_that_predicts_takes_it_where_the_params_say_so(with_gpu, use_gpu):
    for count in (1, 2):
        workers = workers_of(with_params(ray={"use_gpu": use_gpu, "num_workers": count}).ray)
        assert workers.device == (CUDA if use_gpu else CPU)


def test_nothing_that_a_stage_runs_takes_a_gpu_of_its_own_accord():
    """`worker_device` is what they ask."""
    rooms = ("stages", "pipeline/experiments", "pipeline/training", "pipeline/evaluation")
    for path in (path for room in rooms for path in (ROOT / room).rglob("*.py")):
        assert "pick_device" not in path.read_text(), path


def test_on_a_gpu_arithmetic_repeats_in_all_its_bits(with_gpu):
    pick_device()
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.usefixtures("in_tiny_project")
def test_cas_leaves_a_gpu_alone_that_ray_gave_it_none_of(with_gpu, tmp_path):
    """Each of its tasks would take the machine's first one, all at once."""
    params = with_params(
        ray={"use_gpu": False}, classifier={"steps": 1, "batch_size": 4, "checkpoint_every": 1}
    )
    job = cas_job(params, cas.REAL, "none", tmp_path)
    assert cas.run_cas(job)["top1"] <= 1  # asking this torch for a GPU would fail
