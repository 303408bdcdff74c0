"""`maskgit doctor` finds what would stop a run, and says how to mend it."""

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline.config.presets import apply_preset
from pipeline.tools.doctor import examine
from tests.command_line import maskgit
from tests.images import noise_image
from tests.project import ROOT, SECRET, free_port

Usage = namedtuple("Usage", "free total")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in (".dvc", ".git"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def params_of(project) -> Callable[..., None]:
    """Writes a preset's params, changed."""

    def write(preset: str, **changed: object) -> None:
        apply_preset(preset, Path("params.yaml"))
        values = yaml.safe_load(Path("params.yaml").read_text())
        for key, value in changed.items():
            section, _, name = key.partition("__")
            values[section][name] = value
        Path("params.yaml").write_text(yaml.safe_dump(values))

    return write


def found(subject: str) -> tuple[str, str]:
    finding = next(each for each in examine() if each.subject == subject)
    return finding.state, f"{finding.found} → {finding.way_out}"


def test_a_project_that_is_ready_is_called_so(project, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**10, 10**11))
    done = maskgit("doctor", capsys=capsys)
    assert done.code == 0 and done.out.endswith("ready\n")
    values = json.loads(maskgit("doctor", "--json", capsys=capsys).out)
    assert {value["subject"] for value in values} >= {"packages", "params", "data", "disk"}
    assert all(value["state"] in ("good", "note") for value in values)


def test_what_would_stop_a_run_fails_with_a_way_out(project, capsys, monkeypatch):
    (project / "params.yaml").write_text("seed: -1\n")
    (project / ".dvc").rmdir()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    done = maskgit("doctor", capsys=capsys)
    assert done.code == 1 and "3 of 6 would stop a run" in done.out
    for subject in ("params", "project", "ray"):
        state, text = found(subject)
        assert state == "fails" and text.partition(" → ")[2]


def test_outside_of_a_project_nothing_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert maskgit("doctor", capsys=capsys).code == 0
    assert found("project")[0] == "note"


def test_a_broken_check_is_a_failure_of_its_subject(project, monkeypatch):
    def broken(*_):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("torch.cuda.is_available", broken)
    state, text = found("device")
    assert state == "fails" and "RuntimeError" in text


def test_a_requirement_that_is_not_met_is_named(project, monkeypatch):
    wanted = ["dvc>=999", "no-such-package>=1", "pillow", 'gone; extra == "test"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: wanted)
    state, text = found("packages")
    assert state == "fails" and "no-such-package" in text and ">=999" in text
    assert "gone" not in text and "pillow" not in text


@pytest.mark.parametrize("uri", ["http://me:{secret}@127.0.0.1:{port}", "http://server:port"])
def test_a_tracking_server_that_is_away_stops_nothing(project, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(secret=SECRET, port=free_port()))
    state, text = found("tracking")
    assert state == "note" and SECRET not in text


@pytest.mark.parametrize(
    ("changed", "gpus", "cores", "lacking"),
    [
        ({}, 0, 1, ""),
        ({"ray__cpus_per_worker": 3}, 0, 2, "2 cores"),
        ({"ray__num_workers": 2}, 0, 1, "1 cores"),
        ({"ray__use_gpu": True}, 0, 8, "0 GPUs"),
        ({"ray__use_gpu": True}, 1, 8, ""),
    ],
)
def test_workers_that_this_machine_lacks(params_of, monkeypatch, changed, gpus, cores, lacking):
    params_of("smoke", **changed)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    state, text = found("workers")
    assert state == ("fails" if lacking else "good") and lacking in text


def test_too_small_a_disk_is_a_note(params_of, monkeypatch):
    params_of("smoke")
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**6, 10**12))
    assert found("disk")[0] == "note"


def test_a_folder_of_pictures_is_read_as_the_stage_reads_it(params_of, project):
    params_of("smoke", data__source="folder:pictures")
    assert found("data")[0] == "fails"
    for number, name in enumerate(("train/cat", "train/dog", "val/cat", "val/dog")):
        folder = project / "pictures" / name
        folder.mkdir(parents=True)
        noise_image(8, 8, seed=number).save(folder / "one.png")
    state, text = found("data")
    assert state == "good" and "4 images of 2 classes" in text
    (project / "pictures/train/cat/notes.txt").write_text("grey")
    assert found("data")[0] == "note"


def test_torch_compile_needs_a_compiler(params_of, monkeypatch):
    params_of("smoke", training__compile=True)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert found("params")[0] == "fails"
