"""What `maskgit doctor` finds of what the params ask for: a data set, devices and room."""

import json
import os
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline.config.presets import apply_preset
from tests.command_line import maskgit
from tests.doctor_project import enter_project, found


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    return enter_project(tmp_path, monkeypatch)


@pytest.fixture
def params_of(project, monkeypatch) -> Callable[..., None]:
    """Write a preset's params, changed."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)

    def write(preset: str, **changed: str) -> None:
        apply_preset(preset, Path("params.yaml"))
        values = yaml.safe_load(Path("params.yaml").read_text())
        for key, value in changed.items():
            section, _, name = key.partition("__")
            values[section][name] = value
        Path("params.yaml").write_text(yaml.safe_dump(values))

    return write


def test_what_a_preset_for_a_cluster_lacks_on_a_laptop(params_of, capsys, monkeypatch):
    params_of("imagenet256")
    done = maskgit("doctor", capsys=capsys)
    assert done.code == 1 and done.out.endswith("2 of 13 would stop a run\n")
    state, text = found("data")
    assert state == "fails" and "no folder data/raw/imagenet → put the data set there" in text
    state, text = found("workers")
    assert state == "fails" and "16 of 8 cores and a GPU, and this machine has 0 GPUs" in text
    assert "ray.use_gpu to false, or run on a cluster" in text
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    state, text = found("workers")
    assert state == "fails" and "has 1 GPU → lower ray.num_workers" in text
    monkeypatch.setattr("torch.cuda.device_count", lambda: 16)
    assert found("workers")[0] == "good"
    monkeypatch.setattr(os, "cpu_count", lambda: 127)
    assert "127 cores" in found("workers")[1]
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert found("workers")[0] == "good"
    usage = namedtuple("Usage", "free")
    for free, expected in ((500, "note"), (2000, "good")):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: usage(free * 10**9))
        state, text = found("room")
        assert state == expected and f"{free:,}.0 GB are free" in text


def test_a_folder_of_pictures_is_looked_at(params_of, project):
    params_of("smoke", data__source="folder:pictures")
    assert found("data")[0] == "fails"
    (project / "pictures").mkdir()
    state, text = found("data")
    assert state == "fails" and "no class folders → put each class in its own" in text
    for name in ("train/cat", "train/dog", "val/cat"):
        (project / "pictures" / name).mkdir(parents=True)
    assert found("data")[1].startswith("2 classes in pictures/train")
    (project / "pictures/training").mkdir()
    state, text = found("data")
    assert state == "fails" and "which mean the same → keep one" in text
    assert found("room")[1].startswith("not known before the stage prepare")


def test_a_download_is_noted_and_prepared_images_need_none(params_of, project):
    params_of("cifar10")
    state, text = found("data")
    assert state == "note" and "torchvision:CIFAR10 is downloaded into data/raw" in text
    images = project / "data/images"
    images.mkdir(parents=True)
    manifest = {"source": "torchvision:CIFAR10", "class_names": ["a"], "shards": {}}
    (images / "manifest.json").write_text(json.dumps(manifest))
    assert found("data") == ("good", "torchvision:CIFAR10, prepared in data/images → ")
    (images / "manifest.json").write_text("{")
    assert found("data")[0] == "fails"
