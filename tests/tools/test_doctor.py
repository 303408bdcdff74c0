"""`maskgit doctor` finds problems that would stop a run, and says how to correct each problem."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from pipeline.config.presets import apply_preset
from pipeline.runtime.errors import UserError
from pipeline.tools import doctor
from tests.command_line import maskgit
from tests.images import noise_image
from tests.params import make_params
from tests.project import ROOT, SECRET, free_port

Usage = namedtuple("Usage", "free total")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    for name in (".dvc", ".git"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    apply_preset("smoke", Path("params.yaml"))
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.slow
def test_a_project_that_is_ready_is_called_so(project, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**10, 10**11))
    values = json.loads(maskgit("doctor", "--json", capsys=capsys).out)
    assert {value["subject"] for value in values} >= {"packages", "params", "data", "disk"}
    assert all(value["state"] in ("good", "note") for value in values)


def test_what_would_stop_a_run_fails_with_a_way_out(project, capsys, monkeypatch):
    (project / "params.yaml").write_text("seed: -1\n")
    (project / ".dvc").rmdir()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    done = maskgit("doctor", capsys=capsys)
    assert done.code == 1 and "3 of 6 checks fail" in done.out
    for subject in ("params", "project", "ray"):
        assert f"fails  {subject}" in done.out
    assert done.out.count("→") >= 3


def test_outside_of_a_project_nothing_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    done = maskgit("doctor", capsys=capsys)
    assert done.code == 0 and done.out.endswith("ready\n") and "note   project" in done.out


def test_a_requirement_that_is_not_met_is_named(monkeypatch):
    wanted = ["dvc>=999", "no-such-package>=1", "pillow", 'gone; extra == "test"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: wanted)
    finding = doctor.packages()
    assert finding.state == "fails" and finding.found.endswith("dvc>=999, no-such-package>=1")


@pytest.mark.parametrize("uri", ["http://me:{secret}@127.0.0.1:{port}", "http://server:port"])
def test_a_tracking_server_that_is_away_stops_nothing(monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(secret=SECRET, port=free_port()))
    finding = doctor.tracking()
    assert finding.state == "note" and SECRET not in finding.found


@pytest.mark.parametrize(
    ("ray", "gpus", "cores", "state"),
    [
        ({}, 0, 1, "good"),
        ({"cpus_per_worker": 3}, 0, 2, "fails"),
        ({"num_workers": 2}, 0, 1, "fails"),
        ({"use_gpu": True}, 0, 8, "fails"),
        ({"use_gpu": True}, 1, 8, "good"),
    ],
)
def test_workers_that_this_machine_lacks(monkeypatch, ray, gpus, cores, state):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert doctor.workers(make_params(ray=ray)).state == state


def test_too_small_a_disk_is_a_note(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**6, 10**12))
    assert doctor.disk(make_params()).state == "note"


def test_a_folder_of_pictures_is_read_as_the_stage_reads_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = make_params(data={"source": "folder:pictures"})
    with pytest.raises(UserError):
        doctor.data(params)
    for number, name in enumerate(("train/cat", "train/dog", "val/cat", "val/dog")):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        noise_image(8, 8, seed=number).save(folder / "one.png")
    assert doctor.data(params)[1:3] == ("good", "4 images of 2 classes")
    (tmp_path / "pictures/train/cat/notes.txt").write_text("grey")
    assert doctor.data(params).state == "note"
