"""What `maskgit doctor` finds of what the params ask for: a data set, devices and room."""

import json
import os
import re
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline.config.presets import apply_preset
from pipeline.tools.doctor.examine import examine
from tests.command_line import maskgit
from tests.doctor_project import enter_project, found
from tests.images import noise_image

AWAY = "127.0.0.1:1"
RELEASED = {"transformer__pretrained": "maskgit.safetensors"}


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


def test_what_a_preset_for_a_cluster_lacks_on_a_laptop(params_of, capsys):
    params_of("imagenet256")
    done = maskgit("doctor", capsys=capsys)
    assert done.code == 1 and "would stop a run" in done.out
    state, text = found("data")
    assert state == "fails" and "folder data/raw/imagenet does not exist → give" in text
    state, text = found("workers")
    assert state == "fails" and "16 workers of 8 cores and a GPU each, and this" in text
    assert "has 0 GPUs → set ray.use_gpu to false, or run on a cluster" in text


@pytest.mark.parametrize(
    ("changed", "gpus", "cores", "address", "said"),
    [
        ({}, 0, 1, "", "1 worker of 1 core"),
        ({"ray__cpus_per_worker": 3}, 0, 2, "", "2 cores → lower ray.cpus_per_worker"),
        ({"ray__cpus_per_worker": 3}, 0, 2, AWAY, "1 worker of 3 cores"),
        (
            {"ray__num_workers": 2},
            0,
            1,
            "",
            "2 workers of 1 core each, .* lower ray.num_workers",
        ),
        ({"sweep__workers_per_trial": 4}, 0, 2, "", "4 workers .* → lower sweep.workers_per_trial"),
        ({"cas__workers_per_classifier": 4}, 0, 2, "", "→ lower cas.workers_per_classifier"),
        ({"cas__workers_per_classifier": 4}, 0, 2, AWAY, "4 workers of 1 core each"),
        ({"ray__use_gpu": True}, 1, 1, "", "1 worker of 1 core and a GPU"),
        ({"ray__use_gpu": True}, 0, 1, AWAY, "has 0 GPUs → set ray.use_gpu to false"),
        (
            {"ray__use_gpu": True, "ray__num_workers": 2},
            0,
            1,
            AWAY,
            "2 workers of 1 core and a GPU",
        ),
        ({"ray__use_gpu": True, "sweep__workers_per_trial": 4}, 1, 1, AWAY, "4 workers of 1 core"),
        ({"sweep__workers_per_trial": 4, **RELEASED}, 0, 1, "", "1 worker of 1 core"),
        ({"ray__use_gpu": True, "ray__num_workers": 2}, 1, 9, "", "has 1 GPU → lower ray.num_work"),
    ],
)
def test_workers_that_there_are_no_devices_for(
    params_of, monkeypatch, changed, gpus, cores, address, said
):
    params_of("smoke", **changed)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setenv("RAY_ADDRESS", address)
    state, text = found("workers")
    assert re.search(said, text), text
    assert state == ("fails" if "has" in text else "good")


Usage = namedtuple("Usage", "free total")


@pytest.mark.parametrize(
    ("free", "total", "state"), [(100, 500, "fails"), (100, 600, "note"), (2000, 2000, "good")]
)
def test_room_for_what_a_run_writes(params_of, monkeypatch, free, total, state):
    """ImageNet's writes 893 GB, or 532 where DVC's cache shares blocks with outputs."""
    params_of("imagenet256")
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(free * 10**9, total * 10**9))
    found_state, text = found("room")
    assert found_state == state and f"{free:,}.0 GB are free" in text


SHARED_MEMORY = Path("/dev/shm")


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="there is no second disk")
def test_runs_on_a_disk_of_their_own(params_of, project, monkeypatch):
    if SHARED_MEMORY.stat().st_dev == project.stat().st_dev:
        pytest.skip("there is no second disk")
    params_of("imagenet256", ray__storage_path="/dev/shm/maskgit-runs")
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(800 * 10**9, 10**12))
    assert "about 722.7 GB" in found("room")[1]  # outputs, twice
    few = {"/dev/shm": Usage(10**9, 10**9)}
    monkeypatch.setattr("shutil.disk_usage", lambda path: few.get(str(path), Usage(10**13, 10**13)))
    state, text = found("room")
    assert state == "fails" and "in /dev/shm/maskgit-runs" in text


def test_runs_where_nothing_can_be_written(params_of, monkeypatch, tmp_path):
    params_of("smoke", ray__storage_path=str(tmp_path / "theirs/runs"))
    allowed = os.access
    (tmp_path / "theirs").mkdir()
    denied = tmp_path / "theirs"
    monkeypatch.setattr(os, "access", lambda path, mode: path != denied and allowed(path, mode))
    assert found("room") == (
        "fails",
        f"{tmp_path}/theirs/runs cannot be written → name another folder",
    )


def test_a_folder_of_pictures_is_looked_at_as_the_stage_does(params_of, project):
    params_of("smoke", data__source="folder:pictures")
    assert found("data")[0] == "fails"
    (project / "pictures").mkdir()
    state, text = found("data")
    assert state == "fails" and "no class folders → put each class in its own" in text
    for number, name in enumerate(("train/cat", "train/dog", "val/cat", "val/dog")):
        folder = project / "pictures" / name
        folder.mkdir(parents=True)
        if name != "val/dog":
            noise_image(8, 8, seed=number).save(folder / "one.png")
    state, text = found("data")
    assert state == "fails" and "has no images" in text
    noise_image(8, 8, seed=9).save(folder / "one.png")
    assert found("data") == ("good", "4 images of 2 classes → ")
    (project / "pictures/train/cat/notes.txt").write_text("grey")
    state, text = found("data")
    assert state == "note" and text.startswith("4 images of 2 classes; 1 files skipped")
    assert found("room")[0] == "note" and "not known before" in found("room")[1]


def test_a_folder_that_may_not_be_looked_at_is_said_once(params_of, monkeypatch):
    params_of("smoke")

    def denied(*args):
        raise PermissionError(13, "Permission denied", "/theirs")

    monkeypatch.setattr("pipeline.config.params.load_params", denied)
    monkeypatch.setattr("pipeline.tools.doctor.run.load_params", denied)
    findings = {each.subject: each for each in examine()}
    assert findings["params"].found == "/theirs: Permission denied"
    assert not {"data", "workers", "room"} & findings.keys()


@pytest.mark.parametrize("name", ["Nonsense", "ImageFolder", "VisionDataset.x"])
def test_a_data_set_that_torchvision_has_not(params_of, name):
    params_of("smoke", data__source=f"torchvision:{name}")
    state, text = found("data")
    assert state == "fails" and f"no data set '{name}'" in text


def test_a_download_is_noted_and_prepared_images_need_none(params_of, project):
    params_of("cifar10")
    state, text = found("data")
    assert state == "note" and "torchvision:CIFAR10 is not prepared yet" in text
    images = project / "data/images"
    images.mkdir(parents=True)
    manifest = {"source": "torchvision:CIFAR10", "class_names": ["a"], "shards": {}}
    (images / "manifest.json").write_text(json.dumps(manifest))
    assert found("data")[0] == "note"
    (images / "train-00000.arrow").touch()
    assert found("data") == ("good", "torchvision:CIFAR10, prepared in data/images → ")
    (images / "manifest.json").write_text("{")  # which the stage prepare mends
    assert found("data")[0] == "note"
