"""PyTorch in another state than the run's: a call that would draw something else is refused."""

import multiprocessing
import socket
import subprocess
import sys

import pytest
import torch

from pipeline import MaskGIT
from pipeline.api import surroundings
from pipeline.runtime.errors import ArgumentError, UserError
from tests.errors import one_line

CALLS = [
    lambda m: m.sample("class1", 2),
    lambda m: m.sample_batches("class1", 2),
    lambda m: next(m.sample_steps("class1", 2)),
    lambda m: m.edit(torch.zeros(1, 1, 8, 8), "class1"),
    lambda m: m.outpaint(torch.zeros(1, 1, 8, 8), "class1"),
    lambda m: m.reconstruct(torch.zeros(1, 1, 8, 8)),
    lambda m: m.decode(torch.zeros(1, 4, 4, dtype=torch.long)),
    lambda m: MaskGIT.from_pretrained(m.project),
]


@pytest.mark.parametrize("call", CALLS)
def test_autocast_and_other_defaults_around_a_call_are_refused(model, call):
    with torch.autocast("cpu"), pytest.raises(ArgumentError, match=r"^torch\.autocast is on") as it:
        call(model)
    one_line(it)
    with torch.device("meta"), pytest.raises(ArgumentError, match="default device is meta"):
        call(model)
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(UserError, match=r"which is torch\.float64; set it to float32"):
            call(model)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("call", CALLS[:-1])
@pytest.mark.parametrize("part", ["tokenizer", "transformer"])
def test_networks_in_training_mode_are_refused(project, call, part):
    model = MaskGIT.from_pretrained(project)
    getattr(model, part).train()
    with pytest.raises(ArgumentError, match="in training mode"):
        call(model)
    getattr(model, part).eval()
    call(model)


def _sample(model, told) -> None:
    try:
        model.sample("class1", 2)
        told.put("drawn")
    except ArgumentError as error:
        told.put(str(error))


@pytest.fixture
def threads():
    """Two, where the suite runs with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(2, before))
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_forked_process_is_told_and_a_spawned_one_draws(model):
    forked = "this process was forked from one that has a model"
    for start, said in (("fork", forked), ("spawn", "drawn")):
        context = multiprocessing.get_context(start)
        told = context.SimpleQueue()
        process = context.Process(target=_sample, args=(model, told))
        process.start()
        process.join(60)
        assert told.get().startswith(said)


def test_a_forked_process_of_one_thread_draws(monkeypatch):
    monkeypatch.setattr(surroundings, "_opened_in", -1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    surroundings.require_plain_torch()


def test_a_hub_that_takes_a_connection_and_says_nothing_is_given_up(tmp_path):
    code = "from pipeline.api import hub\nhub.ANSWER = 1\nhub.download('someone/digits', None)"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
        command = (sys.executable, "-c", code)
        done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=60)
    said = done.stderr.splitlines()[-1]
    assert "the Hub does not give it (TimeoutError: no answer within 1 seconds)" in said
