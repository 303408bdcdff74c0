"""Processes that prepare the pictures of a training: the same batches as without them, one line
where something is wrong, and none that is left."""

import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from pipeline.config.paths import IMAGES
from pipeline.data.images import loading
from pipeline.data.images import threads as decoding
from pipeline.data.images.batches import Batches, ImageBatches
from pipeline.data.images.loading import prepared
from pipeline.data.images.shards import ImageShards
from pipeline.data.ranks import ALONE, Ranks
from pipeline.experiments import cas
from pipeline.runtime.errors import UserError
from pipeline.runtime.process import THREADS
from pipeline.training.classifier import ClassifierTraining
from pipeline.training.loop import Workers, run_training, train
from pipeline.training.tokenizer import TokenizerTraining
from tests.data.strange_batches import CPU, Strange, Threads
from tests.errors import one_line
from tests.experiments.test_cas import cas_training
from tests.interruption import Killed, KilledAfter, weight_bytes
from tests.project import ROOT
from tests.tiny_project import with_params

pytestmark = [
    pytest.mark.usefixtures("in_tiny_project"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


@pytest.fixture(scope="module", autouse=True)
def one_server() -> None:
    """Of all tests: the first would start one with what it needs alone."""
    loading._start_server(["pipeline.experiments.cas", "torchvision.transforms"])


def cas_batches(images: str, ranks: Ranks) -> Batches:
    params = with_params(classifier={"batch_size": 12})
    training = cas_training(params, images, "randaugment", Path("run"))
    return cas.CasBatches(cas.training_pictures(training), params, True, 1, ranks)


def image_batches(ranks: Ranks) -> Batches:
    return ImageBatches(ImageShards(IMAGES, "train"), with_params().data, 12, 1, ranks)


KINDS = {
    "images": image_batches,
    "cas of real images": partial(cas_batches, cas.REAL),
    "cas of samples": partial(cas_batches, "transformer"),
}


@pytest.mark.parametrize("cores, loaders", [(1, 0), (2, 0), (2, 1), (2, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_the_same_bytes_whoever_prepares_them(kind, cores, loaders, monkeypatch):
    """Of one worker and of the second of two; from the middle on, as after a restart, and back."""
    monkeypatch.setenv(THREADS, str(cores))
    for ranks in (ALONE, Ranks(1, 2)):
        ready = prepared(KINDS[kind](ranks), loaders, CPU)
        for step in (5, 6, 7, 8, 9, 10, 2):
            torch.manual_seed(step)  # a training's own
            state = torch.get_rng_state()
            images, labels = ready(step)
            assert torch.equal(torch.get_rng_state(), state)
            wanted = KINDS[kind](ranks)(step)
            assert torch.equal(images, wanted[0]) and torch.equal(labels, wanted[1])


def test_a_process_of_one_core_has_no_thread_beside_its_computing(monkeypatch):
    """Slow pictures are decoded in threads, but not there; on two cores these are none of those."""
    for cores, quick, threads in ((1, 0.0, 0), (2, math.inf, 1)):
        monkeypatch.setattr(decoding, "QUICK", quick)
        monkeypatch.setenv(THREADS, str(cores))
        before = set(threading.enumerate())  # of which one of another test's may end meanwhile
        ready = prepared(image_batches(ALONE), 0, CPU)
        ready(0)
        assert len(set(threading.enumerate()) - before) == threads


@pytest.mark.parametrize("kind", KINDS)
def test_images_travel_without_those_in_memory(kind):
    batches = KINDS[kind](ALONE)
    before = pickle.dumps(batches)
    stored, _ = batches.read(0)
    assert stored[0][1] in pickle.dumps(stored)
    assert stored[0][1] not in pickle.dumps(batches)
    assert torch.equal(pickle.loads(before)(3)[0], batches(3)[0])


@pytest.mark.parametrize("network", ["classifier", "tokenizer", "cas"])
def test_trainings_end_with_the_same_bytes_and_leave_no_loader(network, tmp_path):
    """With loaders one that is killed, and taken up again from its middle."""
    states = []
    for loaders in (0, 2):
        params = with_params(
            classifier={"steps": 4, "batch_size": 12, "checkpoint_every": 2},
            tokenizer={"steps": 4, "batch_size": 12, "checkpoint_every": 2},
            ray={"loaders_per_worker": loaders, "cpus_per_worker": 3},
        )
        own = {
            "name": network,
            "params": params,
            "seed": 7,
            "folder": tmp_path / str(loaders),
            "workers": Workers.of(params.ray, 1),
        }
        kind = {"classifier": ClassifierTraining, "tokenizer": TokenizerTraining}.get(network)
        of_cas = cas_training(params, "transformer", "randaugment", tmp_path)
        training = kind(**own) if kind else replace(of_cas, **own)
        if loaders:
            with pytest.raises(Killed):
                train(training, training.task(ALONE, CPU), KilledAfter(training.run_dir, 1))
        states.append(run_training(training)["task"]["model"])
        assert multiprocessing.active_children() == []
    assert weight_bytes(states[0]) == weight_bytes(states[1])


@pytest.mark.parametrize("loaders", [0, 2])
@pytest.mark.parametrize("where", ["read_at", "crop_at"])
def test_a_damaged_picture_is_the_same_line(where, loaders):
    """When its batch is asked for, and no sooner."""
    ready = prepared(Strange(**{where: 3}), loaders, CPU)
    assert [ready(step)[0].item() for step in range(3)] == [0, 1, 2]
    with pytest.raises(
        UserError, match=r"^(data/images/|picture )3(.parquet)? is damaged"
    ) as error:
        ready(3)
    one_line(error)
    del error  # which holds this frame, and so would keep the loaders
    assert ready(4)[0].item() == 4


def test_a_loader_that_is_killed_is_a_line():
    ready = prepared(Strange(killed_at=1), 2, CPU)
    with pytest.raises(UserError, match=r"lost.*lower ray\.loaders_per_worker.*run again") as error:
        for step in range(2):
            ready(step)
    one_line(error)
    del error


def test_a_loader_has_one_thread():
    given, torchs = prepared(Threads(), 1, CPU)(0)
    assert given.item() == torchs.item() == 1


def endless(**options) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """A training that is at its third step, and the processes below it."""
    training = subprocess.Popen(
        (sys.executable, "-m", "tests.data.strange_batches", "2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        # What tests in the background ignore, it would ignore, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert [training.stdout.readline() for _ in range(3)] == ["0\n", "1\n", "2\n"]
    below = psutil.Process(training.pid).children(recursive=True)
    assert len(below) >= 4  # two loaders, their server, the tracker of shared memory
    return training, below


def is_deaf(process: psutil.Process) -> bool:
    """Whether it has had SIGINT blocked since it was started."""
    (line,) = (
        line
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("SigBlk:")
    )
    return bool(int(line.split()[1], 16) & 1 << signal.SIGINT - 1)


def test_a_training_that_is_killed_leaves_no_loader():
    training, below = endless()
    training.kill()
    _, left = psutil.wait_procs(below, timeout=20)
    assert left == []


def test_an_interrupted_training_leaves_no_loader_and_says_nothing_of_them():
    """Ctrl-C goes to all processes of the terminal: they are deaf to it, as they start already."""
    training, below = endless()
    blocked = [process for process in below if is_deaf(process)]
    assert len(blocked) == 3  # the tracker of shared memory ignores it
    os.killpg(training.pid, signal.SIGINT)
    _, said = training.communicate(timeout=30)
    assert said == "interrupted\n" and training.returncode == 1
    _, left = psutil.wait_procs(below, timeout=20)
    assert left == []


def test_what_is_left_in_shared_memory_is_removed_without_a_word():
    code = (
        "from pipeline.data.images.loading import _start_tracker\n"
        "_start_tracker()\n"
        "import os\n"
        "from multiprocessing import shared_memory\n"
        "print(shared_memory.SharedMemory(create=True, size=8).name, flush=True)\n"
        "os._exit(0)\n"
    )
    training = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert training.stderr == ""
    assert not Path("/dev/shm", training.stdout.strip()).exists()
