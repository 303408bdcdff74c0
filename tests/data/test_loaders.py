"""Processes that prepare pictures for training: they give the same batches as the training itself,
report an error in one line, and end with the training."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from pipeline.data.images.batches import prepared
from pipeline.data.ranks import ALONE, Ranks
from pipeline.experiments import cas
from pipeline.runtime.process import THREADS
from tests.data.step_batches import CPU, StepBatches
from tests.experiments.test_cas import cas_training
from tests.project import ROOT
from tests.tiny_project import with_params

pytestmark = [
    pytest.mark.usefixtures("in_tiny_project"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


def batches(ranks: Ranks) -> cas.CasBatches:
    """Return batches with RandAugment, which draws from torch's global generator."""
    params = with_params(classifier={"batch_size": 12})
    training = cas_training(params, "transformer", "randaugment", Path("run"))
    return cas.CasBatches(training, ranks)


@pytest.mark.parametrize("loaders", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_are_the_same_bytes_whoever_prepares_them(loaders, monkeypatch):
    """Test a single worker and the second of two, from step 5 on, as after a restart."""
    monkeypatch.setenv(THREADS, "2")
    for ranks in (ALONE, Ranks(1, 2)):
        ready = prepared(batches(ranks), loaders, CPU)
        for step in (5, 6, 7):
            torch.manual_seed(step)  # a training's own
            state = torch.get_rng_state()
            images, labels = ready(step)
            assert torch.equal(torch.get_rng_state(), state)
            wanted = batches(ranks)(step)
            assert torch.equal(images, wanted[0]) and torch.equal(labels, wanted[1])


@pytest.mark.slow
def test_a_loader_has_one_thread():
    assert prepared(StepBatches(), 1, CPU)(0)[1].tolist() == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("ended", [signal.SIGKILL, signal.SIGINT])
def test_a_training_that_is_ended_leaves_no_loader(ended):
    """Ctrl-C goes to all processes of the terminal; only the training prints a line."""
    training = subprocess.Popen(
        (sys.executable, "-m", "tests.data.step_batches", "2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        # It would ignore SIGINT as tests in the background do.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert [training.stdout.readline() for _ in range(3)] == ["0\n", "1\n", "2\n"]
    below = psutil.Process(training.pid).children(recursive=True)
    assert len(below) >= 2  # the loaders
    if ended == signal.SIGKILL:
        training.kill()
    else:
        os.killpg(training.pid, ended)
    _, said = training.communicate(timeout=30)
    # Python's resource tracker warns at times, if the thread of a queue ends last.
    lines = [line for line in said.splitlines() if "resource_tracker: " not in line]
    assert ended == signal.SIGKILL or lines == ["interrupted"]
    _, left = psutil.wait_procs(below, timeout=20)
    assert left == []
