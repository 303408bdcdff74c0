"""What the command `plan` reads, what it asks for and what it prints."""

import dataclasses
import json
import re
import sys

import pytest

from pipeline.config.presets import PRESETS, preset_params
from pipeline.runtime.errors import UserError
from pipeline.tools.plan.data import data_size
from pipeline.tools.plan.networks import plan_networks
from pipeline.tools.plan.report import plan_text, plan_values
from pipeline.tools.plan.stages import plan_stages
from tests.planned import DIGITS


def test_size_of_the_data_set(make_params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = make_params()
    assert dataclasses.astuple(data_size(params))[:3] == (4000, 1000, 10)
    assert dataclasses.astuple(data_size(params, images=100))[:3] == (80, 20, 10)
    imagenet = preset_params("imagenet256")
    assert dataclasses.astuple(data_size(imagenet))[:3] == (1_281_167, 50_000, 1000)

    manifest = {"source": "mnist5k", "class_names": ["a", "b"], "shards": {}}
    manifest["counts"] = {"train": {"a": 3, "b": 4}, "val": {"a": 1, "b": 1}}
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/images/manifest.json").write_text(json.dumps(manifest))
    assert dataclasses.astuple(data_size(params))[:3] == (7, 2, 2)
    assert data_size(imagenet).train == 1_281_167  # the manifest is another data set's

    (tmp_path / "data/images/manifest.json").write_text(json.dumps(manifest | {"counts": {}}))
    assert data_size(params).train == 4000  # it does not tell

    own = make_params(data={"source": "folder:mine"})
    assert dataclasses.astuple(data_size(own, 50, 3))[:3] == (40, 10, 3)
    with pytest.raises(UserError, match="--images 0 is no size"):
        data_size(own, 0, 3)
    with pytest.raises(UserError, match="4 training images are too few for 5 classes"):
        data_size(own, 5, 5)
    for images, classes in ((None, None), (50, None), (None, 3)):
        with pytest.raises(UserError, match=r"folder:mine .*--images and --classes") as error:
            data_size(own, images, classes)
        assert "\n" not in str(error.value)


def test_times_are_flops_over_the_rate_of_all_devices(make_params):
    params = make_params(ray={"num_workers": 2})
    text = plan_text(params, DIGITS, tflops=0.001)
    networks = plan_networks(params, DIGITS)
    stage = next(s for s in plan_stages(params, DIGITS, networks) if s.name == "train_transformer")
    hours = stage.flops / 1e9 / 2 / 3600
    assert plan_values(params, DIGITS, 0.001)["stages"][3]["seconds"] == pytest.approx(hours * 3600)
    line, _ = re.findall(r"^train_transformer .*$", text, flags=re.MULTILINE)  # and its storage
    assert f"{60 * hours:.1f} min" in line or f"{hours:.1f} h" in line
    assert "time at" not in plan_text(params, DIGITS)
    for rate in (0.0, -1.0, 1e-320, 1e300, float("inf"), float("nan")):
        with pytest.raises(UserError, match=f"--tflops {re.escape(f'{rate:g}')} is no rate"):
            plan_text(params, DIGITS, tflops=rate)


def test_the_header_of_evening_says_what_its_plan_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the published size, and not that of images prepared here
    header = (PRESETS / "evening.yaml").read_text(encoding="utf-8")
    pattern = r"Cost: (\S+) hours of one core by `python -m pipeline plan evening --tflops (\S+)`"
    hours, rate = re.search(pattern, header).groups()
    params = preset_params("evening")
    text = plan_text(params, data_size(params), tflops=float(rate))
    assert re.search(rf"^in all .* {re.escape(hours)} h$", text, flags=re.MULTILINE)


def test_command_prints_a_preset_and_changes_nothing(tmp_path, monkeypatch, capsys):
    from pipeline.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pipeline", "plan", "imagenet256", "--tflops", "100"])
    main()
    text = capsys.readouterr().out
    assert "172,457,193" in text and "54,515,587" in text and "published size" in text
    assert not list(tmp_path.iterdir())
