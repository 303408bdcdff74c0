"""`maskgit doctor` finds what would stop a run, and says how to mend it."""

import json
import os
from collections import namedtuple
from pathlib import Path

import pytest

from pipeline.tools.doctor.examine import examine, findings_text
from tests.command_line import maskgit
from tests.doctor_project import enter_project, found
from tests.project import free_port

Usage = namedtuple("Usage", "free total")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    return enter_project(tmp_path, monkeypatch)


def test_a_project_that_is_ready_is_called_so(project, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**10, 10**11))
    done = maskgit("doctor", capsys=capsys)
    assert done.code == 0 and done.out.endswith("ready\n")
    values = json.loads(maskgit("doctor", "--json", capsys=capsys).out)
    assert [value["subject"] for value in values] == [
        *("Python", "packages", "device", "memory", "disk"),
        *("project", "params", "DVC", "data", "workers", "room", "Ray", "tracking"),
    ]
    assert all(value["state"] in ("good", "note") for value in values)


def test_each_thing_that_would_stop_a_run_fails_with_a_way_out(project, capsys, monkeypatch):
    (project / "params.yaml").write_text("seed: 0\n")
    (project / ".dvc").rmdir()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**8, 10**11))
    done = maskgit("doctor", capsys=capsys)
    assert done.code == 1 and done.out.endswith("4 of 10 would stop a run\n")
    for subject, said in (
        ("params", "take a preset"),
        ("DVC", "dvc init"),
        ("Ray", "refused → start it"),
        ("disk", "make room"),
    ):
        state, text = found(subject)
        assert state == "fails" and said in text, text


def test_a_damaged_dag_would_stop_a_run(project):
    Path("dvc.yaml").write_text("stages: [")
    state, text = found("project")
    assert state == "fails" and "dvc.yaml" in text


def test_a_tracking_server_that_is_away_stops_nothing(project, monkeypatch):
    secret = f"http://me:hunter2@127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
    state, text = found("tracking")
    assert state == "note" and "maskgit sync" in text and "hunter2" not in text


def test_a_tracking_server_without_an_address_is_told_from_a_broken_installation(
    project, monkeypatch
):
    for uri in ("http://server:port", "http://[server", "http://server:99999"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        state, text = found("tracking")
        assert state == "note" and "is not an address" in text and "MLFLOW_TRACKING_URI" in text


def test_a_requirement_that_is_not_met_is_named(project, monkeypatch):
    from importlib import metadata

    wanted = ["dvc>=999", "no-such-package>=1", "pillow", 'gone; extra == "test"']
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    state, text = found("packages")
    assert state == "fails" and "no-such-package is missing" in text and ">=999" in text
    assert "gone" not in text and "pillow" not in text


def test_no_project_is_a_note_and_a_broken_check_a_failure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert found("project")[0] == "note" and found("params")[0] == "note"

    def broken(*args):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("pipeline.tools.doctor.machine.cores", broken)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    state, text = found("device")
    assert state == "fails" and "RuntimeError: two lines" in text
    assert "1 of 10 would stop a run" in findings_text(examine())


@pytest.mark.parametrize(
    "gpu, variable, lacking",
    [
        (True, None, "a C compiler, and there is no gcc or clang"),
        (False, None, "a C++ compiler, and there is no g++"),
        (True, "/opt/cc", "a C compiler, and there is no /opt/cc"),
    ],
)
def test_what_torch_compile_needs(project, monkeypatch, gpu, variable, lacking):
    params = project / "params.yaml"
    text = params.read_text().replace("compile: false", "compile: true")
    params.write_text(text.replace("use_gpu: false", f"use_gpu: {str(gpu).lower()}"))
    monkeypatch.setenv("PATH", "")
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
        if variable:
            monkeypatch.setenv(name, variable)
    state, said = found("params")
    assert state == "fails"
    assert f"torch.compile needs {lacking} → install it" in said
    assert said.endswith(", or set training.compile to false")
    monkeypatch.setenv("RAY_ADDRESS", "a-cluster:6379")
    assert found("params")[0] == "good"
    monkeypatch.delenv("RAY_ADDRESS")
    params.write_text(text.replace("compile: true", "compile: false"))
    assert found("params")[0] == "good"


def test_cores_that_work_are_told_from_those_there_are(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "), 1 thread on 8 cores" in found("device")[1]
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert "), 8 cores" in found("device")[1]


def test_a_folder_that_cannot_be_written_is_said(project, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert found("disk")[0] == "fails"


@pytest.mark.parametrize("address", ["head", "127.0.0.1:99999"])
def test_an_address_that_is_no_clusters_is_found(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert found("Ray")[0] == "fails"


def test_a_folder_of_another_users_run_is_named(project, monkeypatch):
    (project / "runs").mkdir()
    allowed = os.access
    denied = Path("runs")
    monkeypatch.setattr(os, "access", lambda path, mode: path != denied and allowed(path, mode))
    assert found("disk") == ("fails", "runs cannot be written → change its permissions")
