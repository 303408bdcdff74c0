"""The scripts of stages, run as by `dvc repro` but without MLflow: how they end, what a killed
stage makes again, and what a new seed runs. Also tests the gallery."""

import importlib
import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, SAMPLES
from pipeline.data.images.shards import ImageShards, View
from pipeline.evaluation.evaluator import Evaluator
from pipeline.experiments import edit, reconstruct, reject, speed
from pipeline.experiments.evaluate.gallery import write_gallery
from pipeline.prepare.datasets import open_source, stratified_split
from pipeline.runtime import mlflow_sync
from pipeline.runtime import stage as stage_module
from pipeline.runtime.dag import stage_params
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_json, write_json
from pipeline.runtime.run_log import RunLog, read_rows
from pipeline.runtime.stage import Stage
from pipeline.sampling import Sampler
from stages import prepare, running
from tests import tiny_project as tiny
from tests.images import noise_image
from tests.project import ROOT


@pytest.fixture
def run(make_params, tmp_path, monkeypatch) -> Callable[..., None]:
    """Run a function as a stage's script, in a project whose only stage is `edit`."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(json.dumps(make_params().model_dump()))
    stages = {"edit": {"params": ["seed"], "deps": [], "outs": ["results/rows.csv"]}}
    Path("dvc.yaml").write_text(json.dumps({"stages": stages}))

    def run(main: Callable[[Params], str], name: str = "edit") -> None:
        monkeypatch.setitem(sys.modules, f"stages.{name}", SimpleNamespace(main=main))
        running.run_stage(name)

    return run


def test_an_error_is_a_line(run):
    def fail(params: Params) -> str:
        raise UserError("the loss", "became nan", "lower the learning rate")

    with pytest.raises(SystemExit, match=r"^error: the loss: became nan; lower the learning rate$"):
        run(fail)
    with pytest.raises(SystemExit, match=r"^error: dvc.yaml: has no stage 'cook'[^\n]*edit$"):
        running.run_stage("cook")
    with pytest.raises(SystemExit, match=r"^error: interrupted; run again to resume from the last"):
        run(Mock(side_effect=KeyboardInterrupt))


def test_a_bug_is_a_line_that_names_the_file_of_its_traceback_and_shows_no_password(
    run, monkeypatch, tmp_path
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@host")

    def fail(params: Params) -> str:
        raise ValueError("http://me:s3cret@host \x1b[2J \udcff")

    with pytest.raises(SystemExit) as caught:
        run(fail)
    file, line = tmp_path / "runs/traceback-edit.txt", str(caught.value)
    assert line.startswith("error: ValueError: ") and str(file) in line and "\x1b" not in line
    text = file.read_text()
    assert "Traceback" in text and "s3cret" not in text + line and "\n" not in line


def test_a_stage_started_by_hand_refuses_inputs_of_other_params(run, monkeypatch, capsys):
    def done(params: Params) -> str:
        return "done"

    shutil.copy(ROOT / "dvc.yaml", ".")
    monkeypatch.delenv("DVC_STAGE", raising=False)
    for seed in (0, 5):
        made = stage_params("prepare") | {"seed": seed, "ray.num_workers": 9}
        write_json("results/sources/prepare.json", {"params": made})
        if seed == 0:
            run(done, "train_classifier")
    with pytest.raises(SystemExit, match=r"^error: seed: prepare ran with 5, .* `dvc repro train_"):
        run(done, "train_classifier")
    monkeypatch.setenv("DVC_STAGE", "train_classifier")
    run(done, "train_classifier")
    assert capsys.readouterr().out.count("done") == 2


@pytest.fixture
def stage(run, make_params, monkeypatch) -> Stage:
    """Return a stage whose tracking server does not answer."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@127.0.0.1:9")
    monkeypatch.setattr(mlflow_sync, "ROUND", 0.02)
    return Stage("edit", make_params())


def test_an_end_that_cannot_be_logged_hides_no_error_and_costs_no_result(
    stage, monkeypatch, capsys
):
    def full(self, ok):
        raise UserError("cannot write runs/log", "No space left on device")

    monkeypatch.setattr(RunLog, "finish", full)
    with pytest.raises(UserError, match="loss became nan"), stage:
        raise UserError("loss became nan")
    assert "edit: cannot write runs/log: No space left" in capsys.readouterr().out
    with stage:
        pass
    source = json.loads(Path("results/sources/edit.json").read_bytes())
    assert source["run_id"] == "" and source["key"] == stage.hash


def test_a_stage_says_what_is_still_to_be_sent_and_removes_what_a_killed_one_left(stage, capsys):
    Path("results/.rows.csv.0123abcd.tmp").parent.mkdir()
    for name in (".rows.csv.0123abcd.tmp", ".other.csv.0123abcd.tmp", "rows.csv"):
        Path("results", name).write_text("half")
    with stage:
        left = {path.name for path in Path("results").iterdir()}
        stage.run.log_metrics({"fid": 1.0})
    assert left == {".other.csv.0123abcd.tmp", "rows.csv"}
    assert "edit: logs are still to be sent to http://me:***@127.0.0.1:9" in capsys.readouterr().out


@pytest.mark.usefixtures("own_project")
def test_gallery_shows_as_many_real_images_as_the_smallest_class_has():
    shutil.rmtree(IMAGES)
    for path in sorted(Path("pictures/train/class1").iterdir())[4:]:
        path.unlink()
    tiny.write_shards_of(Path("pictures"), IMAGES)
    tiny.write_features(tiny.with_params())
    write_gallery(tiny.with_params(), Path("gallery"), Evaluator(tiny.with_params(), tiny.ALONE))
    images = ImageShards(IMAGES, "train")
    view = View(images, tiny.with_params().data, seed=0)
    with np.load("gallery/class_grid.npz") as grid:
        assert grid["transformer"].shape == (tiny.CLASSES, 10, tiny.SIDE, tiny.SIDE, 1)
        assert grid["real"].shape == (tiny.CLASSES, 4, tiny.SIDE, tiny.SIDE, 1)
        for label, row in enumerate(grid["real"]):
            chosen = np.flatnonzero(images.labels == label)[:4]
            assert np.array_equal(row, view.centers(chosen).permute(0, 2, 3, 1).numpy())
    with np.load("gallery/neighbours.npz") as found:
        assert found["nearest"].shape[1] == 5 and (np.diff(found["distance"]) >= 0).all()


@pytest.fixture
def run_stage(own_project, monkeypatch) -> Callable[..., str]:
    """Run a stage's main as `dvc repro` would, without MLflow."""
    names = ("edit", "reject", "reconstruct", "temperature", "speed")
    listed = {"params": ["seed", *tiny.CHANGES, "ray"], "deps": ["data/images"]}
    Path("dvc.yaml").write_text(json.dumps({"stages": dict.fromkeys(names, listed)}))
    sync = SimpleNamespace(close=lambda *_: "")
    monkeypatch.setattr(stage_module, "Sync", lambda *_: sync)

    def start(stage: str, **sections: dict) -> str:
        few = {"images": 11, "iterations": 1}
        params = tiny.with_params(
            **{"editing": few, "reconstruction": few | {"draws": 2}} | sections
        )
        Path("params.yaml").write_text(json.dumps(params.model_dump()))
        return importlib.import_module(f"stages.{stage}").main(params)

    return start


# Percentages, and tenths of a temperature.
STEPS = {"edit": {0}, "reject": {100, 50, 20}, "temperature": {0, 90}, "reconstruct": {0, 50}}


@pytest.mark.parametrize(
    ("stage", "where", "calls"),
    [  # A call of a function kills it, between the first row and the last.
        pytest.param("edit", (edit, "edit"), 3, marks=pytest.mark.slow),
        ("reject", (reject, "select"), 4),
        ("temperature", (Sampler, "__call__"), 5),
        ("reconstruct", (reconstruct, "decode"), 6),
    ],
)
def test_a_killed_stage_resumes_after_its_last_batch_and_writes_the_same_bytes(
    run_stage, monkeypatch, stage, where, calls
):
    plain = getattr(*where)

    def results() -> dict[str, bytes]:
        files = [path for path in Path("results").glob("*/*") if path.parent.name != "sources"]
        return {path.name: path.read_bytes() for path in files}

    def run(most: int) -> int:
        """Return the calls that were made."""
        counted = tiny.Dies(plain, most)
        monkeypatch.setattr(*where, lambda *args, **named: counted(*args, **named))
        assert run_stage(stage).startswith(f"{stage}: ")
        return most - counted.left

    needed, straight = run(10**6), results()
    assert straight.keys() - {"pictures.npz"} == {"rows.csv"}
    (log,) = Path("runs", stage).glob("*/log")
    logged = [row for _, row in read_rows(log / "metrics.jsonl")]
    rows = [row["metrics"] for row in logged]
    assert {row["step"] for row in logged} == STEPS[stage]
    assert rows and all(math.isfinite(value) for row in rows for value in row.values())
    assert json.loads((log / "run.json").read_text())["status"] == "FINISHED"
    assert (log / "artifacts/rows.csv").read_bytes() == straight["rows.csv"]
    assert Path(f"results/sources/{stage}.json").exists()
    shutil.rmtree("results")
    shutil.rmtree("runs")
    with pytest.raises(KeyboardInterrupt):
        run(calls)
    assert run(10**6) == needed - calls > 0
    assert results() == straight


def test_one_more_seed_or_other_samples_of_a_seed_is_all_that_runs(run_stage, monkeypatch):
    """There are two networks. Each selects twice at three acceptance rates."""
    run_stage("reject", evaluation={"seeds": [0]})
    first = pd.read_csv(file := Path("results/rejection/rows.csv"))
    counted = tiny.Dies(reject.select, calls=2 * 2 * 3)
    monkeypatch.setattr(reject, "select", counted)
    run_stage("reject")
    assert counted.left == 0
    rows = pd.read_csv(file)
    pd.testing.assert_frame_equal(rows[rows["seed"] != 1].reset_index(drop=True), first)
    shutil.rmtree(SAMPLES / "transformer/seed1")
    shutil.copytree(SAMPLES / "transformer/seed0", SAMPLES / "transformer/seed1")
    counted.left = 2 * 3
    run_stage("reject")
    assert counted.left == 0


def test_speed_is_measured_by_a_worker_where_the_stage_lacks_the_gpu(run_stage, monkeypatch):
    stage, beside = importlib.import_module("stages.speed"), []

    def run_beside(function, *arguments, resources):
        beside.append(resources)
        with monkeypatch.context() as there:
            there.setattr(speed, "worker_device", lambda use_gpu: tiny.CPU)
            return function(*arguments)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(stage, "join_ray", lambda: None)
    monkeypatch.setattr(stage, "require_resources", lambda *needs: None)
    monkeypatch.setattr(stage, "run_beside", run_beside)
    run_stage("speed", ray={"use_gpu": True, "num_workers": 2, "cpus_per_worker": 3})
    assert beside == [{"CPU": 3, "GPU": 1}]
    rows = pd.read_csv("results/speed_timings.csv")
    assert len(rows) == 2 * 3 * 2 and rows["tokens"].unique().tolist() == [1, 4]


def test_prepare_splits_by_the_seed_and_counts_the_largest_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage_module, "Sync", lambda *_: SimpleNamespace(close=lambda *_: ""))
    for number in range(60):
        path = Path("pictures", "often" if number % 3 else "seldom", f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        noise_image(tiny.SIDE, tiny.SIDE, "L", seed=number).save(path)
    params = tiny.with_params(data={"val_fraction": 0.25}).model_copy(update={"seed": 5})
    Path("params.yaml").write_text(json.dumps(params.model_dump()))
    Path("dvc.yaml").write_text(json.dumps({"stages": {"prepare": {"params": ["seed", "data"]}}}))
    prepare.main(params)
    source, images = open_source("folder:pictures", "", tiny.SIDE), ImageShards(IMAGES, "val")
    wanted = [source.items[i].key for i in stratified_split(source, 0.25, 5)["val"]]
    assert [images.read(number)[0] for number in range(len(images))] == wanted
    assert read_json("results/prepare/metrics.json")["largest_class"] == pytest.approx(2 / 3)
