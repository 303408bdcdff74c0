"""What is noted of the machines that did a stage's work."""

import json
import platform

import pytest
import torch

from pipeline.runtime import device, machines
from pipeline.runtime.trials import NOTE, machines_of, meet, note_workers, this_machine

A = {"host": "a", "device": "cpu"}
B = {"host": "b", "device": "NVIDIA H100"}


@pytest.fixture(autouse=True)
def nobody_met(monkeypatch):
    monkeypatch.setattr(machines, "_met", [])


def test_this_machine():
    found = this_machine()
    assert found["host"] == platform.node() and found["device"] == "cpu"
    assert found["torch"] == torch.__version__


def test_the_device_of_a_worker_is_the_gpu_that_it_picked(monkeypatch):
    monkeypatch.setattr(device, "_picked", [])
    monkeypatch.setattr(device, "repeatable", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda of: "NVIDIA H100")
    device.worker_device(use_gpu=False)
    assert this_machine()["device"] == "cpu"
    device.worker_device(use_gpu=True)
    assert this_machine()["device"] == "NVIDIA H100"


def test_whoever_takes_a_training_up_is_noted_beside_those_before(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    note_workers(first, [B, A, A])
    note_workers(first, [A])
    note_workers(second, [A])
    assert machines_of([first, second]) == [A, B]
    assert machines_of([tmp_path]) == [A, B]  # as of the jobs of a stage
    assert machines_of([tmp_path / "none"]) == []
    meet(B)
    assert machines_of([second]) == [A, B]


NO_NOTES = [b"", b"[1, 2]", b"{}", b"\xff", b"[{}", b"null", b'[{"host": 5}]']
NO_NOTES += [b'[{"host": "a\\ud800"}]', b'[{"host": "' + b"h" * 5000 + b'"}]']


@pytest.mark.parametrize("damaged", NO_NOTES, ids=lambda note: note[:20])
def test_a_damaged_note_costs_no_result(tmp_path, damaged):
    (tmp_path / NOTE).write_bytes(damaged)
    assert machines_of([tmp_path]) == []
    note_workers(tmp_path, [A])
    assert json.loads((tmp_path / NOTE).read_bytes()) == [A]
