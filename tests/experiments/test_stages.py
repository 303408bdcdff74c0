"""The stages of editing, rejection, reconstruction, choice temperature and speed, run as `dvc
repro` would, without MLflow; the scores by temperature, and the gallery."""

import importlib
import json
import math
import platform
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config.paths import IMAGES, TOKENIZER
from pipeline.config.replicates import main_replicates
from pipeline.data.images import shards
from pipeline.data.images.views import View
from pipeline.data.seeds import mix
from pipeline.decoding import DecodingSettings, generate
from pipeline.experiments import edit as edits
from pipeline.experiments import rows as rows_module
from pipeline.experiments import speed, temperature
from pipeline.experiments.evaluate.gallery import write_gallery
from pipeline.runtime import stage as stage_module
from pipeline.runtime import trials
from pipeline.runtime.run_log import RunLog
from pipeline.runtime.trials import note_machines
from pipeline.sampling import balanced_labels
from pipeline.tokenizer import tokens_to_images
from pipeline.weights.published import load_model
from tests.tiny_project import (
    ALONE,
    CHANGES,
    CLASSES,
    SIDE,
    Dies,
    check_resumes,
    check_scores,
    folders_of,
    with_params,
    write_features,
    write_shards_of,
)

pytestmark = pytest.mark.usefixtures("in_tiny_project")


def test_every_temperature_and_replicate_is_scored(tmp_path):
    params = with_params()
    rows = temperature.temperature_rows(params, folders_of(tmp_path, params), ALONE)
    keys = [(row["choice_temperature"], row["seed"]) for row in rows]
    assert keys == [(0.0, 0), (0.0, 1), (9.0, 0), (9.0, 1)]
    models = [load_model(r.folder, "transformer") for r in main_replicates(params, "transformer")]
    tokenizer = load_model(TOKENIZER, "tokenizer")
    labels = balanced_labels(23, CLASSES)
    for row in rows:
        images = [
            tokens_to_images(
                tokenizer,
                generate(
                    models[row["seed"]],
                    chunk,
                    DecodingSettings(3, "cosine", row["choice_temperature"]),
                    seed=mix(mix(row["seed"], "temperature"), "batch", number),
                )[-1].sampled,
            )
            for number, chunk in enumerate(labels.split(10))
        ]
        check_scores(row, torch.cat(images).numpy(), labels)
        assert row["samples"] == 23
    assert len({row["fid_classifier"] for row in rows}) == 4


def test_killed_temperatures_go_on(tmp_path):
    def rows_of(folder: Path) -> list[dict]:
        params = with_params()
        return temperature.temperature_rows(params, folders_of(folder, params), ALONE)

    straight = check_resumes(rows_of, tmp_path, rows_module, "make_tensors", calls=2)
    params = with_params(temperature={"values": [0.0, 5.0, 9.0]})
    more = temperature.temperature_rows(params, folders_of(tmp_path / "killed", params), ALONE)
    assert [row for row in more if row["choice_temperature"] != 5.0] == straight


def test_gallery_shows_as_many_real_images_as_the_smallest_class_has(
    tiny_project, tmp_path, monkeypatch
):
    shutil.copytree(tiny_project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    shutil.rmtree(IMAGES)
    for path in sorted(Path("pictures/train/class1").iterdir())[4:]:
        path.unlink()
    write_shards_of(Path("pictures"), IMAGES)
    write_features(with_params())
    write_gallery(with_params(), Path("gallery"), ALONE)
    images = shards.ImageShards(IMAGES, "train")
    view = View(images, with_params().data, seed=0)
    with np.load("gallery/class_grid.npz") as grid:
        assert grid["transformer"].shape == (CLASSES, 10, SIDE, SIDE, 1)
        assert grid["real"].shape == (CLASSES, 4, SIDE, SIDE, 1)
        for label, row in enumerate(grid["real"]):
            chosen = np.flatnonzero(images.labels == label)[:4]
            assert np.array_equal(row, view.centers(chosen).permute(0, 2, 3, 1).numpy())


RESULTS = {
    "edit": ["editing/rows.csv", "editing/pictures.npz"],
    "reject": ["rejection/rows.csv"],
    "reconstruct": ["reconstruction/rows.csv", "reconstruction/pictures.npz"],
    "temperature": ["temperature/rows.csv"],
    "speed": ["speed_timings.csv"],
}


class Run(RunLog):
    """Stands for a run's log, for the monitor of the machine and for what sends to MLflow."""

    run_id, key, workers = "run", "key", f"{platform.node()} (cpu)"

    def __init__(self):
        self.metrics, self.artifacts, self.ended = {}, [], []

    def log_metrics(self, metrics, step=0):
        self.metrics |= {(name, step): value for name, value in metrics.items()}

    def log_tags(self, tags):
        assert tags == {"workers": self.workers}

    def log_artifact(self, path):
        self.artifacts.append(str(path))

    def finish(self, ok):
        self.ended.append(ok)

    def begin(self):
        return self

    def close(self, most=60.0):
        return ""


@pytest.fixture
def run_stage_main(in_tiny_project, monkeypatch):
    """Run a stage's main as `dvc repro` would, without MLflow; its summary, and the stand-in."""
    sections = sorted(CHANGES)
    declared = {
        stage: {"params": ["seed", *sections], "deps": ["data/images"]} for stage in RESULTS
    }
    Path("dvc.yaml").write_text(json.dumps({"stages": declared}))

    def start(stage: str, **sections) -> tuple[str, Run]:
        params, run = with_params(**sections), Run()
        Path("params.yaml").write_text(json.dumps(params.model_dump()))
        for opened in ("open_reproduction", "RunLog", "log_load", "Sync"):
            monkeypatch.setattr(stage_module, opened, lambda *_, **__: run)
        return importlib.import_module(f"stages.{stage}").main(params), run

    return start


@pytest.mark.parametrize("stage", RESULTS)
def test_stage_writes_its_results_and_made_anew_the_same_bytes(run_stage_main, stage):
    files = [Path("results", name) for name in RESULTS[stage]]
    summary, run = run_stage_main(stage)
    assert summary.startswith(f"{stage}: ") and "\n" not in summary
    assert str(files[0]) in run.artifacts and run.metrics
    assert all(math.isfinite(value) for value in run.metrics.values())
    assert run.ended == [True, True]  # the run, and that of the whole
    assert json.loads(Path(f"results/sources/{stage}.json").read_bytes())["run_id"] == run.run_id
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    shutil.rmtree("runs")
    run_stage_main(stage)
    if stage == "speed":  # timings are measured again
        rows = pd.read_csv(files[0])
        assert len(rows) == 2 * 3 * 2 and rows["tokens"].unique().tolist() == [1, 4]
    else:
        assert [file.read_bytes() for file in files] == before


SEED = 5 * 3  # edits of a replicate: three batches of five tasks


@pytest.fixture
def of_project(in_tiny_project, tmp_path, monkeypatch) -> None:
    """A tiny project of the test's own, without what other tests ran."""
    shutil.copytree(in_tiny_project, tmp_path / "project", ignore=shutil.ignore_patterns("runs"))
    monkeypatch.chdir(tmp_path / "project")


def test_one_more_seed_or_another_model_of_a_seed_is_all_that_runs(
    run_stage_main, of_project, monkeypatch
):
    run_stage_main("edit", evaluation=CHANGES["evaluation"] | {"seeds": [0]})
    plain = edits.edit
    monkeypatch.setattr(edits, "edit", Dies(plain, calls=SEED + 8))  # and the pictures
    run_stage_main("edit")
    assert edits.edit.left == 0
    first, second = (r.folder for r in main_replicates(with_params(), "transformer"))
    shutil.rmtree(second)
    shutil.copytree(first, second)
    monkeypatch.setattr(edits, "edit", Dies(plain, calls=SEED + 8))
    run_stage_main("edit")
    assert edits.edit.left == 0


def test_killed_speed_keeps_its_grids_until_it_is_done(run_stage_main, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(speed, "speed_rows", Dies(speed.speed_rows, calls=1))
        with pytest.raises(KeyboardInterrupt):
            run_stage_main("speed")
        (kept,) = Path("runs/speed").glob("*/cpu-*-1.json")
        times = [row["seconds_per_image"] for row in json.loads(kept.read_text())]
    run_stage_main("speed")
    rows = pd.read_csv("results/speed_timings.csv")
    first = rows[rows["tokens"] == 1]["seconds_per_image"].tolist()
    assert first == pytest.approx(times, rel=1e-9)
    assert not kept.exists()


def test_speed_is_measured_by_a_worker_where_the_stage_has_no_gpu(run_stage_main, monkeypatch):
    stage, machine = importlib.import_module("stages.speed"), {"host": "b", "device": "H100"}

    def run_trials(function, jobs, needs, *, stage, on_done):
        assert (needs.resources, needs.max_failures) == ({"CPU": 3, "GPU": 1}, 2)
        with monkeypatch.context() as there:
            there.setattr(speed, "worker_device", lambda use_gpu: torch.device("cpu"))
            there.setattr(speed, "device_name", lambda device: machine["device"])
            for job in jobs:
                note_machines([machine])
                on_done(job, function(job))

    monkeypatch.setattr(trials, "_machines", [])  # of other tests
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(stage, "join_ray", lambda: None)
    monkeypatch.setattr(stage, "require_resources", lambda *needs: None)
    monkeypatch.setattr(stage, "run_trials", run_trials)
    monkeypatch.setattr(Run, "workers", "b (H100)")
    own = {"use_gpu": True, "num_workers": 2, "cpus_per_worker": 3, "max_failures": 2}
    run_stage_main("speed", ray=own)
    assert set(pd.read_csv("results/speed_timings.csv")["device"]) == {"H100"}
    record = json.loads(Path("results/sources/speed.json").read_bytes())
    assert record["workers"] == [machine]
